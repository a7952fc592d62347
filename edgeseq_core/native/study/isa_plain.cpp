#define SET plain
#include "study.h"
#if 1
#include "body.h"
#else  // the compiler cannot
const study::Body* study::SET() { return nullptr; }
#endif
