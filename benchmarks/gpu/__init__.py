"""One command for a machine with a GPU: does CUDA compute what a CPU does, and how near to its limit does it work?"""
