// Which kernels and loops this CPU and its system can run, asked once.
#include <cstring>

#include "kernels.h"
#include "loops.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace edgeseq {
namespace {

#if defined(__x86_64__)

bool bit(unsigned leaf, unsigned subleaf, char which, unsigned at) {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(leaf, subleaf, &a, &b, &c, &d)) return false;
  return ((which == 'a' ? a : which == 'b' ? b : which == 'c' ? c : d) >> at) & 1;
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avxvnni() { return has_avx2() && bit(7, 1, 'a', 4); }
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

// Linux gives a process the tiles' state only when it asks (arch_prctl ARCH_REQ_XCOMP_PERM, XTILEDATA).
bool has_amx() {
#if defined(__linux__)
  const bool there = has_avx512() && bit(7, 0, 'd', 24) && bit(7, 0, 'd', 25);
  return there && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}

#endif

const Loops* wide_loops() {
#if defined(__x86_64__)
  return has_avx2() && bit(1, 0, 'c', 29) ? loops_avx2() : nullptr;  // F16C
#else
  return nullptr;
#endif
}

struct Found {
  const Kernels* list[6];
  size_t count = 0;

  void add(const Kernels* kernels, bool here) {
    if (kernels && here) list[count++] = kernels;
  }

  Found() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    add(kernels_amx(), has_amx());
    add(kernels_avx512(), has_avx512());
    add(kernels_avxvnni(), has_avxvnni());
    add(kernels_avx2(), has_avx2());
#elif defined(__aarch64__) && defined(__linux__)
    add(kernels_neon(), getauxval(AT_HWCAP) & (1 << 20));  // HWCAP_ASIMDDP
#elif defined(__aarch64__) && defined(__APPLE__)
    add(kernels_neon(), true);
#endif
    add(kernels_plain(), true);
  }
};

const Found& found() {
  static const Found once;
  return once;
}

}  // namespace

const Kernels* const* available(size_t* count) {
  *count = found().count;
  return found().list;
}

const Kernels* named(const char* name) {
  for (size_t i = 0; i < found().count; i++)
    if (!std::strcmp(found().list[i]->name, name)) return found().list[i];
  return nullptr;
}

const Loops& loops() {
  static const Loops& best = wide_loops() ? *wide_loops() : *loops_plain();
  return best;
}

}  // namespace edgeseq
