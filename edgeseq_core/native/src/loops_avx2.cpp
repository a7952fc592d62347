#if defined(__AVX2__) && defined(__F16C__)
#include "loops_body.h"
EDGESEQ_LOOPS(avx2)
#else
#include "loops.h"
const edgeseq::Loops* edgeseq::loops_avx2() { return nullptr; }  // the compiler cannot
#endif
