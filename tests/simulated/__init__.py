"""A CUDA device without one: what its tests stand on.

``guard``          refuses what a CUDA graph may not capture
``fake``           tensors of any size that say ``cuda:0`` and hold nothing
``tensors``        tensors that say ``cuda:0`` and hold real numbers on the CPU
``device``         streams, events, graphs and pinned memory over them, in place of torch.cuda
``host_kernels``   ``yuv420.cu`` through g++, launched with the bytes a CUDA launch would read
"""
