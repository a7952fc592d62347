"""The native engine: `edgeseq_core.native.engine` before the extension module, C++ in ``src/``."""
