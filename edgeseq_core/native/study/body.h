// All of the work, compiled for one set of instructions, which SET names.

#include <algorithm>
#include <cmath>

#include "study.h"

namespace study {
namespace {
#include "lanes.h"
#include "products.h"
#include "tokens.h"
#include "attention.h"
#include "network.h"

#define TEXT(name) #name
#define NAME(set) TEXT(set)
const Body body{NAME(SET), encode, read, teach};
}  // namespace

const Body* SET() { return &body; }
}  // namespace study
