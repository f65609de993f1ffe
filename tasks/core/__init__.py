"""Pure decisions: values in, values out; no os, time, socket, subprocess, requests or doit."""
