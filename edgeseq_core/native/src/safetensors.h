// A safetensors file's bytes: what its header says, checked before any of it is used, and nothing copied.
//
// Eight bytes of length, a JSON object of that length, then the arrays one after another.  The JSON is of one
// form only: `__metadata__` with texts, if it is there, then for every array its type, its shape and where it
// lies.
#pragma once

#include <mutex>
#include <string>
#include <string_view>

#include "arrays.h"

namespace edgeseq {

// The last few layouts: snapshots of a task differ in their metadata and their numbers, rarely in their arrays.
class Layouts {
 public:
  // Throws Misfit.
  std::shared_ptr<const Layout> of(std::string_view text, size_t bytes);

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<const Layout>> last_;  // the latest first
};

class Tensors {
 public:
  // Throws Misfit.  The bytes must outlive it.
  explicit Tensors(std::string_view bytes, Layouts* known = nullptr);

  std::string header;  // the text under `header` of the metadata
  Arrays arrays;
};

}  // namespace edgeseq
