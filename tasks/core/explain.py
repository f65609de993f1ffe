def cpu_fallback(output: str) -> str:
    return ""


def offloaded(output: str) -> bool:
    return True
