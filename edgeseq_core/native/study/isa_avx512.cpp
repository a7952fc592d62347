#define SET avx512
#include "study.h"
#if defined(__AVX512F__)
#include "body.h"
#else  // the compiler cannot
const study::Body* study::SET() { return nullptr; }
#endif
