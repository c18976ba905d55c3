// ggml's tensor types: every one has a size here, so that files are checked whole; those with a codec can be read.
#include "models/gguf.h"

namespace quire {

namespace {

const GgufTensorType kTypes[] = {
    {0, "F32", 1, 4, id<F32>},
    {1, "F16", 1, 2, id<F16>},
    {2, "Q4_0", 32, 18, id<Q4_0>},
    {3, "Q4_1", 32, 20, id<Q4_1>},
    {6, "Q5_0", 32, 22, id<Q5_0>},
    {7, "Q5_1", 32, 24, id<Q5_1>},
    {8, "Q8_0", 32, 34, id<Q8_0>},
    {9, "Q8_1", 32, 36, {}},
    {10, "Q2_K", 256, 84, id<Q2_K>},
    {11, "Q3_K", 256, 110, id<Q3_K>},
    {12, "Q4_K", 256, 144, id<Q4_K>},
    {13, "Q5_K", 256, 176, id<Q5_K>},
    {14, "Q6_K", 256, 210, id<Q6_K>},
    {15, "Q8_K", 256, 292, {}},
    {16, "IQ2_XXS", 256, 66, {}},
    {17, "IQ2_XS", 256, 74, {}},
    {18, "IQ3_XXS", 256, 98, {}},
    {19, "IQ1_S", 256, 50, {}},
    {20, "IQ4_NL", 32, 18, id<IQ4_NL>},
    {21, "IQ3_S", 256, 110, {}},
    {22, "IQ2_S", 256, 82, {}},
    {23, "IQ4_XS", 256, 136, id<IQ4_XS>},
    {24, "I8", 1, 1, {}},
    {25, "I16", 1, 2, {}},
    {26, "I32", 1, 4, {}},
    {27, "I64", 1, 8, {}},
    {28, "F64", 1, 8, {}},
    {29, "IQ1_M", 256, 56, {}},
    {30, "BF16", 1, 2, id<BF16>},
    {34, "TQ1_0", 256, 54, {}},
    {35, "TQ2_0", 256, 66, {}},
    {39, "MXFP4", 32, 17, id<MXFP4>},
    {40, "NVFP4", 64, 36, {}},
    {41, "Q1_0", 128, 18, {}},
};

}  // namespace

const GgufTensorType* find_gguf_type(uint32_t id) {
  for (const GgufTensorType& type : kTypes) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

std::string readable_gguf_types() {
  std::string names;
  for (const GgufTensorType& type : kTypes) {
    if (type.codec) names += (names.empty() ? "" : ", ") + std::string(type.name);
  }
  return names;
}

}  // namespace quire
