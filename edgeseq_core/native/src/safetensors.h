// A safetensors file's bytes: what its header says, checked before any of it is used, and nothing copied.
//
// Eight bytes of length, a JSON object of that length, then the arrays one after another.  The JSON is of one
// form only: `__metadata__` with texts, and for every array its type, its shape and where it lies.
#pragma once

#include <string>
#include <string_view>

#include "arrays.h"

namespace edgeseq {

class Tensors {
 public:
  // Throws Misfit.  The bytes must outlive it.
  explicit Tensors(std::string_view bytes);

  std::string header;  // the text under `header` of the metadata
  Arrays arrays;
};

}  // namespace edgeseq
