#define SET avx2
#include "study.h"
#if defined(__AVX2__) && defined(__FMA__)
#include "body.h"
#else  // the compiler cannot
const study::Body* study::SET() { return nullptr; }
#endif
