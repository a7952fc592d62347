// Threads that answer while calibrations are swapped and bases are loaded and freed: built with a sanitizer by
// test_sanitizers.py, which also writes the files.  Every answer must be that of the calibration that it read.
//
//   stress BASE SHAPE SECONDS CALIBRATION...
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "driver.h"

using namespace edgeseq;

namespace {

constexpr size_t kTokens = 8, kAnswering = 2;

// A base, its engine and the calibrations that serve: immutable, replaced as a whole.
struct Bank {
  std::shared_ptr<Engine> engine;
  std::vector<std::shared_ptr<const Calibration>> tasks;
  std::vector<size_t> which;  // calibration file each task serves
};

std::vector<std::vector<uint32_t>> answer(const Bank& bank) {
  std::vector<Request> requests;
  for (size_t row = 0; row < 2 * bank.tasks.size(); row++) {
    const std::vector<uint32_t> source = row % 2 ? std::vector<uint32_t>{70, 71, 72, 2} : std::vector<uint32_t>{90, 2};
    requests.push_back({source, bank.tasks[row / 2], 1 + row % 2, false, {}, source});
  }
  std::vector<std::vector<uint32_t>> out;
  for (Found& found : bank.engine->generate(requests, {kTokens, 1, {}}, 2))
    out.push_back(std::move(found.hypotheses.at(0).tokens));
  return out;
}

int run(const std::vector<std::string>& arguments) {
  const auto &base = arguments.at(0), &shape = arguments.at(1);
  const double seconds = std::atof(arguments.at(2).c_str());
  const std::vector<std::string> files(arguments.begin() + 3, arguments.end());
  size_t count;
  const Kernels* const* kernels = available(&count);
  const auto new_bank = [&](std::vector<size_t> which) {
    auto bank = std::make_shared<Bank>();
    bank->engine = std::make_shared<Engine>(load_base(base, shape), *kernels[0]);
    for (size_t file : which) bank->tasks.push_back(load_task(*bank->engine, files.at(file)));
    bank->which = std::move(which);
    return bank;
  };
  std::shared_ptr<const Bank> serving = new_bank({0, 1});
  std::vector<std::vector<std::vector<uint32_t>>> expected;  // a file
  for (size_t file = 0; file < files.size(); file++) expected.push_back(answer(*new_bank({file})));

  std::atomic<bool> stop{false}, wrong{false};
  std::array<std::atomic<size_t>, 3> done{};
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kAnswering; i++)
    threads.emplace_back([&] {
      while (!stop) {
        const std::shared_ptr<const Bank> read = std::atomic_load(&serving);
        const auto found = answer(*read);
        for (size_t row = 0; row < found.size(); row++)
          if (found[row] != expected[read->which[row / 2]][row % 2]) wrong = true;
        done[0]++;
      }
    });
  threads.emplace_back([&] {  // swaps one task, and every now and then loads a new base
    for (size_t turn = 0; !stop; turn++) {
      std::shared_ptr<Bank> next;
      const std::shared_ptr<const Bank> now = std::atomic_load(&serving);
      const size_t task = turn % 2, file = turn % files.size();
      if (turn % 8 == 7) {
        next = new_bank(now->which);
        done[2]++;
      } else {
        next = std::make_shared<Bank>(*now);
        next->tasks[task] = load_task(*next->engine, files[file]);
        next->which[task] = file;
        done[1]++;
      }
      std::atomic_store(&serving, std::shared_ptr<const Bank>(next));
    }
  });
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!wrong && (std::chrono::steady_clock::now() < end || !done[0] || !done[1] || !done[2]))
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  stop = true;
  for (std::thread& one : threads) one.join();
  std::printf("%s: %zu batches, %zu swaps, %zu bases\n", kernels[0]->name, done[0].load(), done[1].load(), done[2].load());
  if (wrong) std::puts("an answer was not that of its calibration");
  return wrong;
}

}  // namespace

int main(int count, char** arguments) { return run({arguments + 1, arguments + count}); }
