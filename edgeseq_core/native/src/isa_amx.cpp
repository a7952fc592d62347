#if defined(__AMX_INT8__) && defined(__AVX512VNNI__)
#include "kernels_body.h"
EDGESEQ_KERNELS(amx)
#else
#include "kernels.h"
const edgeseq::Kernels* edgeseq::kernels_amx() { return nullptr; }  // the compiler cannot
#endif
