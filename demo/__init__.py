"""The demo model and the programs that train it. The recipe reads only demo.gguf."""
