// Directories as some writers make them: values that are not finite, data at odd bytes, scales of other types, older
// keys, and what is missing.
#include <gmock/gmock.h>

#include <cstring>

#include "models/hf_config.h"
#include "models/json_file.h"
#include "models/tokenizer.h"
#include "tests/models/equal_formats.h"
#include "tests/models/golden_quantized.h"
#include "tests/models/gptq_directory.h"
#include "tests/models/hf_directory.h"
#include "tests/models/quantized_values.h"

namespace quire {
namespace {

class HfVariants : public HfDirectory {
 protected:
  // The tiny model in `codec`, each tensor's bytes as `change` leaves them.
  template <class Change>
  std::string write_model(const std::string& name, Codec codec, size_t shift, Change&& change) const {
    const TinyModel model = make_tiny_model({.layers = 1, .embedding = codec, .matrices = codec});
    const std::string directory = dir_.file(name);
    write_tiny_hf(model, directory);
    SafetensorsWriter w;
    for (const TinyTensor& t : model.tensors) {
      const Tensor& x = t.weight.tensor;
      std::string bytes(bytes_of(x));
      change(t.name, x, bytes);
      w.tensor(t.name, safetensors_type_of(x.codec),
               x.rows > 1 ? std::vector<int64_t>{x.rows, x.cols} : std::vector<int64_t>{x.cols}, bytes);
    }
    w.shift = shift;
    write_file(directory + "/model.safetensors", w.file());
    return directory;
  }
};

// One value of a matrix, the embedding or a norm: every scheme refuses it and says where, and so does `quantize`.
TEST_F(HfVariants, FloatsThatAreNotFiniteAreRefused) {
  struct Bad {
    Codec codec;
    std::string bytes;
  };
  const Bad values[] = {{id<F16>, std::string("\x00\x7C", 2)},         {id<F16>, std::string("\x01\xFE", 2)},
                        {id<BF16>, std::string("\x80\xFF", 2)},        {id<BF16>, std::string("\xC0\x7F", 2)},
                        {id<F32>, std::string("\x00\x00\x80\x7F", 4)}, {id<F32>, std::string("\x01\x00\x80\xFF", 4)}};
  int made = 0;
  for (const Bad& bad : values) {
    for (const std::string& spoiled :
         {std::string("model.layers.0.mlp.down_proj.weight"), std::string("model.embed_tokens.weight")}) {
      const std::string path =
          write_model(fmt::format("bad{}", ++made), bad.codec, spoiled.size() % 2,
                      [&](const std::string& name, const Tensor& x, std::string& bytes) {
                        if (name == spoiled)
                          bytes.replace(size_t(5 * x.data.pitch) + 2 * bad.bytes.size(), bad.bytes.size(), bad.bytes);
                      });
      for (const char* scheme : {"", "f32", "f16", "w8a8", "w4a16", "w2", "wfp8"}) {
        SCOPED_TRACE(fmt::format("{} {} '{}'", info(bad.codec).name, spoiled, scheme));
        expect_error([&] { open_small(path, scheme, "", "cpu"); }, {spoiled, "not finite in row 5"});
      }
      expect_error([&] { quantize(path, "w8a8", path + "-q"); }, {spoiled, "not finite in row 5"});
    }
  }
  const std::string norm = "model.layers.0.input_layernorm.weight";
  const std::string path = write_model("norm", id<F16>, 0, [&](const std::string& name, const Tensor&, auto& bytes) {
    if (name == norm) bytes.replace(4 * 7, 4, std::string("\x00\x00\xC0\x7F", 4));
  });
  expect_error([&] { open_small(path, "", "", "cpu"); }, {norm, "not finite at 7"});
  expect_error([&] { quantize(path, "w8a8", path + "-q"); }, {norm, "not finite in row 0"});
}

// Largest and smallest numbers are finite.
TEST_F(HfVariants, TheLargestFloatsAreRead) {
  const std::string path = write_model("large", id<F16>, 0, [&](const std::string& name, const Tensor&, auto& bytes) {
    if (name == "model.layers.0.mlp.down_proj.weight") bytes.replace(0, 4, std::string("\xFF\x7B\x01\x00", 4));
  });
  EXPECT_EQ(compute(*open_small(path)).logits.size(), 70u * 300u);
}

// Data at an odd byte run as they do elsewhere, and only the rows that are asked for are copied.
TEST_F(HfVariants, RowsOfMisalignedTensorsAreCopiedAlone) {
  for (const Codec codec : {id<F32>, id<F16>, id<BF16>}) {
    const auto as_it_is = [](const std::string&, const Tensor&, std::string&) {};
    const std::string name = info(codec).name, even = write_model(name + "-even", codec, 0, as_it_is),
                      odd = write_model(name + "-odd", codec, 1, as_it_is);
    const Checkpoint a = Checkpoint::open(even), b = Checkpoint::open(odd);
    for (const CheckpointTensor& t : a.tensors()) {
      SCOPED_TRACE(t.name);
      EXPECT_FALSE(a.copied_by_rows(t.name));
      ASSERT_TRUE(b.copied_by_rows(t.name));
      EXPECT_EQ(b.listed(t.name).tensor.data.ptr, nullptr);
      const int64_t first = t.tensor.rows / 3, n = std::min<int64_t>(5, t.tensor.rows - first);
      EXPECT_EQ(bytes_of(b.rows(t.name, first, n)), bytes_of(a.rows(t.name, first, n)));
      EXPECT_EQ(b.listed(t.name).tensor.data.ptr, nullptr);
    }
    for (const char* scheme : {"", "f32", "f16", "w8a8", "w4a8"})
      EXPECT_EQ(compute(*open_small(odd, scheme, "", "cpu")), compute(*open_small(even, scheme, "", "cpu"))) << scheme;
    for (const char* scheme : {"w8a8", "f16"}) {
      for (const std::string& path : {even, odd}) quantize(path, scheme, path + "-" + scheme);
      EXPECT_EQ(read_text_file(odd + "-" + scheme + "/model.safetensors", 1 << 24),
                read_text_file(even + "-" + scheme + "/model.safetensors", 1 << 24));
    }
  }
}

// What `quantize` wrote, its header one byte longer.
TEST_F(HfVariants, MisalignedPlanesAreCopied) {
  const std::string q = dir_.file("q");
  quantize(path(), "w4a16", q);
  const Computed expected = compute(*open_small(q, "", "", "cpu"));
  std::string file = read_text_file(q + "/model.safetensors", 1 << 24);
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  file.insert(8 + length, " ");
  ++length;
  std::memcpy(file.data(), &length, 8);
  write_file(q + "/model.safetensors", file);
  EXPECT_EQ(compute(*open_small(q, "", "", "cpu")), expected);
}

// f16 numbers in the types that scales may have.
std::string scales_as(const std::string& type, const std::string& halves) {
  std::string out;
  for (size_t i = 0; i < halves.size(); i += 2) {
    uint16_t half;
    std::memcpy(&half, halves.data() + i, 2);
    const float value = f16_to_f32(half);
    const uint16_t brain = f32_to_bf16(value);
    if (type == "F32") out.append(reinterpret_cast<const char*>(&value), 4);
    if (type == "BF16") out.append(reinterpret_cast<const char*>(&brain), 2);
  }
  return out;
}

TEST_F(HfVariants, ScalesOfAwqMayBeOfAnyFloatType) {
  const DrawOptions o{4, 32, false, false};
  const Ordered config = {{"quant_method", "awq"}, {"bits", 4}, {"group_size", 32}};
  for (const std::string type : {"F32", "BF16"}) {
    for (const bool gemv : {false, true}) {
      Ordered c = config;
      c["version"] = gemv ? "gemv" : "gemm";
      const auto d = write_quantized_hf(
          make_tiny_model(tiny()), dir_.file(type + (gemv ? "v" : "m")), c, [&](const std::string&) { return o; },
          [&](SafetensorsWriter& w, const std::string& module, DrawnMatrix m) {
            for (uint16_t& s : m.scales) s = f32_to_f16(bf16_to_f32(uint16_t(f32_to_bf16(f16_to_f32(s)))));
            SafetensorsWriter halves;
            gemv ? write_awq_gemv(halves, module, m, 4) : write_awq_gemm(halves, module, m);
            const std::string file = halves.file();
            uint64_t length = 0;
            std::memcpy(&length, file.data(), 8);
            for (const auto& [name, entry] : halves.header.items()) {
              const size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
              const std::string bytes = file.substr(8 + length + begin, end - begin);
              const bool scales = name.ends_with(".scales");
              w.tensor(name, scales ? type : entry["dtype"].get<std::string>(), entry["shape"],
                       scales ? scales_as(type, bytes) : bytes);
            }
          });
      SCOPED_TRACE(d.path);
      const Checkpoint checkpoint = Checkpoint::open(d.path);
      for (const auto& [module, m] : d.matrices) {
        const std::vector<float> got = decoded(checkpoint.get(module + ".weight"));
        for (int64_t r = 0; r < m.rows; ++r) {
          for (int64_t c = 0; c < m.cols; ++c) {
            const float scale = bf16_to_f32(f32_to_bf16(m.scale(r, m.group_of[size_t(c)])));
            const int steps = m.code(r, c) - m.zero(r, m.group_of[size_t(c)]);
            ASSERT_EQ(got[size_t(r * m.cols + c)], scale * float(steps)) << module << " " << r << " " << c;
          }
        }
      }
    }
  }
}

TEST_F(HfVariants, ScalesOfQserveMayBeOfAnyFloatType) {
  const TinyModel model =
      make_tiny_model({.layers = 1, .hidden = 128, .ffn = 256, .heads = 8, .kv_heads = 4, .head_dim = 16});
  const auto written = [&](const std::string& name, const std::string& type, bool grouped, float factor) {
    Draw draw;
    return write_directory(model, dir_.file(name), tiny_hf_config(model),
                           [&](SafetensorsWriter& w, const std::string& module, int64_t rows, int64_t cols) {
                             SafetensorsWriter halves;
                             const auto values = grouped ? put_groups(halves, module, rows, cols, draw, false)
                                                         : put_channels(halves, module, rows, cols, draw);
                             const std::string file = halves.file();
                             uint64_t length = 0;
                             std::memcpy(&length, file.data(), 8);
                             for (const auto& [entry_name, e] : halves.header.items()) {
                               const size_t begin = e["data_offsets"][0], end = e["data_offsets"][1];
                               std::string bytes = file.substr(8 + length + begin, end - begin);
                               const bool halved = e["dtype"] == "F16";
                               if (halved) bytes = scales_as(type, bytes);
                               if (halved && factor != 1.0f) {
                                 for (size_t i = 0; i < bytes.size(); i += 4) {
                                   float v;
                                   std::memcpy(&v, bytes.data() + i, 4);
                                   v *= factor;
                                   std::memcpy(bytes.data() + i, &v, 4);
                                 }
                               }
                               w.tensor(entry_name, halved ? type : e["dtype"].get<std::string>(), e["shape"], bytes);
                             }
                             return values;
                           });
  };
  for (const bool grouped : {false, true}) {
    const std::string name = grouped ? "groups" : "channels";
    const Values values = written(name, "F32", grouped, 1.0f);
    const Checkpoint checkpoint = Checkpoint::open(dir_.file(name));
    for (const auto& [module, wanted] : values)
      EXPECT_EQ(decoded(checkpoint.get(module + ".weight")), wanted) << module;
    written(name + "-bf16", "BF16", grouped, 1.0f);
    EXPECT_NO_THROW(Checkpoint::open(dir_.file(name + "-bf16")));
  }
  written("fine", "F32", true, 1.0f + 0x1p-20f);  // more digits than f16 has
  EXPECT_NO_THROW(Checkpoint::open(dir_.file("fine")));
  written("coarse", "F32", false, 1.0f + 0x1p-20f);
  expect_error([&] { Checkpoint::open(dir_.file("coarse")); }, {"s1_scales", "which f16 cannot hold"});
}

// ---- Configurations

TEST_F(HfVariants, BitsAndBytesWithoutAMethodsName) {
  const GoldenQuantized& golden = GoldenQuantized::get();
  for (const char* name : {"bnb-int8", "bnb-nf4-double", "bnb-fp4"}) {
    const std::string path = golden.write(name, dir_.file(name));
    const std::string module = "model.layers.0.mlp.up_proj.weight";
    const std::vector<float> expected = decoded(Checkpoint::open(path).get(module));
    nlohmann::json config = golden.of(name).at("config");
    config["quantization_config"].erase("quant_method");
    write_file(path + "/config.json", config.dump());
    EXPECT_EQ(decoded(Checkpoint::open(path).get(module)), expected) << name;
    config["quantization_config"].erase("load_in_8bit"), config["quantization_config"].erase("load_in_4bit");
    write_file(path + "/config.json", config.dump());
    expect_error([&] { Checkpoint::open(path); }, {"'unnamed'"});
  }
}

// bnb_4bit_quant_storage: the same bytes as another type.
TEST_F(HfVariants, FourBitCodesStoredAsFloats) {
  const GoldenQuantized& golden = GoldenQuantized::get();
  const std::string path = golden.write("bnb-nf4-double", dir_.file("q")), file = path + "/model.safetensors";
  const std::string module = "model.layers.0.mlp.up_proj.weight", whole = read_text_file(file, 1 << 24);
  const std::vector<float> expected = decoded(Checkpoint::open(path).get(module));
  uint64_t length = 0;
  std::memcpy(&length, whole.data(), 8);
  for (const auto& [type, size] : {std::pair<const char*, int64_t>("BF16", 2), {"F16", 2}, {"F32", 4}}) {
    Ordered header = Ordered::parse(whole.substr(8, length));
    for (const auto& [name, entry] : header.items()) {
      if (!header.contains(name + ".absmax")) continue;
      entry["dtype"] = type;
      entry["shape"] = {entry["shape"][0].get<int64_t>() / size, 1};
    }
    write_file(file, SafetensorsWriter::file_of(header.dump(), whole.substr(8 + length)));
    EXPECT_EQ(decoded(Checkpoint::open(path).get(module)), expected) << type;
    header[module]["shape"] = {1, header[module]["shape"][0]};
    write_file(file, SafetensorsWriter::file_of(header.dump(), whole.substr(8 + length)));
    expect_error([&] { Checkpoint::open(path); }, {module, "bytes of codes are needed"});
  }
}

TEST_F(HfVariants, OlderKeysOfCompressedTensors) {
  const GoldenQuantized& golden = GoldenQuantized::get();
  const std::string path = golden.write("w4a16", dir_.file("q")), module = "model.layers.0.mlp.up_proj.weight";
  const std::vector<float> expected = decoded(Checkpoint::open(path).get(module));
  nlohmann::json config = golden.of("w4a16").at("config");
  const nlohmann::json settings = config["quantization_config"];
  config.erase("quantization_config");
  const auto reopened = [&](const nlohmann::json& value) {
    config["compression_config"] = value;
    write_file(path + "/config.json", config.dump());
    return decoded(Checkpoint::open(path).get(module));
  };
  EXPECT_EQ(reopened(settings), expected);
  EXPECT_EQ(reopened({{"quantization_config", settings}}), expected);
  EXPECT_EQ(reopened({{"quantization_config", settings}, {"sparsity_config", {{"format", "dense"}}}}), expected);
  expect_error(
      [&] {
        reopened({{"quantization_config", settings}, {"sparsity_config", {{"format", "sparse-24"}}}});
      },
      {"sparse-24"});
}

// An order of -1 throughout was never set.
TEST_F(HfVariants, AnUnsetOrderOfGroups) {
  const GoldenQuantized& golden = GoldenQuantized::get();
  const std::string path = golden.write("w4a16", dir_.file("q")), file = path + "/model.safetensors";
  const std::string module = "model.layers.0.mlp.up_proj";
  const std::vector<float> expected = decoded(Checkpoint::open(path).get(module + ".weight"));
  const std::string whole = read_text_file(file, 1 << 24);
  uint64_t length = 0;
  std::memcpy(&length, whole.data(), 8);
  for (const char last : {'\xFF', '\0'}) {
    Ordered header = Ordered::parse(whole.substr(8, length));
    const size_t size = whole.size() - 8 - length;
    header[module + ".weight_g_idx"] = {{"dtype", "I32"}, {"shape", {64}}, {"data_offsets", {size, size + 256}}};
    write_file(file, SafetensorsWriter::file_of(
                         header.dump(), whole.substr(8 + length) + std::string(252, '\xFF') + std::string(4, last)));
    if (last != '\0') {
      const Checkpoint checkpoint = Checkpoint::open(path);
      EXPECT_EQ(decoded(checkpoint.get(module + ".weight")), expected);
      EXPECT_EQ(checkpoint.find(module + ".weight")->input, nullptr);
    } else {
      expect_error([&] { Checkpoint::open(path); }, {"weight_g_idx", "group -1"});
    }
  }
}

TEST_F(HfVariants, PackedTensorsSayWhoPacksLikeThat) {
  const DrawOptions o{4, 32, false, false};
  const auto d = write_quantized_hf(
      make_tiny_model(tiny()), dir_.file("gptq"), nullptr, [&](const std::string&) { return o; },
      [&](SafetensorsWriter& w, const std::string& module, DrawnMatrix m) { write_gptq(w, module, m, 0, false); });
  expect_error([&] { Checkpoint::open(d.path); },
               {".qweight' is in I32, as GPTQ, AWQ or QServe packs", "names no such"});
  const GoldenQuantized& golden = GoldenQuantized::get();
  for (const auto& [name, who] : {std::pair<const char*, const char*>("w4a16", "as compressed-tensors packs"),
                                  {"bnb-nf4-double", "as bitsandbytes"},
                                  {"fp8-kv", "as fp8, compressed-tensors"}}) {
    const std::string path = golden.write(name, dir_.file(name));
    nlohmann::json config = golden.of(name).at("config");
    config.erase("quantization_config");
    write_file(path + "/config.json", config.dump());
    expect_error([&] { Checkpoint::open(path); }, {who, "names no such method"});
  }
}

TEST_F(HfVariants, CodeThatReadsTextOnlyIsNoConcern) {
  EXPECT_NO_THROW(open_with("auto_map", Ordered::object()));
  EXPECT_NO_THROW(open_with("auto_map", {{"AutoTokenizer", {"tokenization_x.X", nullptr}}}));
  expect_config_refused("auto_map", {{"AutoTokenizer", "a.B"}, {"AutoModel", "m.M"}}, {"'auto_map'"});
  expect_config_refused("auto_map", Ordered::array({"AutoModel"}), {"'auto_map'"});
}

TEST_F(HfVariants, NoNumberOfKeyHeadsIsThatOfQueryHeads) {
  for (const auto& [architecture, type] : {std::pair<const char*, const char*>("LlamaForCausalLM", "llama"),
                                           {"MistralForCausalLM", "mistral"},
                                           {"Qwen2ForCausalLM", "qwen2"},
                                           {"Qwen3ForCausalLM", "qwen3"},
                                           {"Phi3ForCausalLM", "phi3"}}) {
    Ordered config = tiny_hf_config(model_);
    config["architectures"] = {architecture};
    config["model_type"] = type;
    config["num_key_value_heads"] = nullptr;
    EXPECT_EQ(read_hf_config(JsonObject(config, "config")).kv_heads, 2) << type;
  }
}

// An id that the head has a row for can be produced and ends the text; one beyond it never is.
TEST_F(HfVariants, EndsOfTextWithoutATokenAreKnownOrNeverCome) {
  const int64_t vocab = model_.config.vocab;
  write("generation_config.json", fmt::format(R"({{"eos_token_id": [2, {}, {}]}})", vocab, uint64_t(1) << 40));
  EXPECT_THAT(open().tokenizer().eos, testing::Contains(2));
  EXPECT_THAT(open().tokenizer().eos, testing::Not(testing::Contains(vocab)));
  Ordered json = tiny_hf_tokenizer(model_);
  for (auto it = json["model"]["vocab"].begin(); it != json["model"]["vocab"].end(); ++it) {
    if (it.value() != vocab - 1) continue;
    json["model"]["vocab"].erase(it);  // the last row of the head has no token
    break;
  }
  json["model"]["merges"].erase(json["model"]["merges"].size() - 1);
  write("tokenizer.json", json.dump());
  write("generation_config.json", fmt::format(R"({{"eos_token_id": {}}})", vocab - 1));
  const TokenizerData data = open().tokenizer();
  EXPECT_LT(int64_t(data.tokens.size()), vocab);
  EXPECT_TRUE(Tokenizer(data).is_eos(int32_t(vocab - 1)));
}

TEST_F(HfVariants, AnIndexMayNameFilesFromHere) {
  remove("model.safetensors");
  write_tiny_hf(model_, path(), 2);
  const std::string index = "model.safetensors.index.json";
  Ordered json = Ordered::parse(read_text_file(path() + "/" + index, 1 << 20));
  for (const auto& [name, file] : json["weight_map"].items()) file = "./" + file.get<std::string>();
  write(index, json.dump());
  EXPECT_EQ(open().tensors().size(), model_.tensors.size());
  for (const char* file : {"././x.safetensors", "./../x.safetensors", "./.safetensors", "./"}) {
    json["weight_map"]["model.norm.weight"] = file;
    write(index, json.dump());
    expect_refused({"is not the name of a safetensors file in this directory"});
  }
}

// To be looked at, not to be run.
TEST_F(HfVariants, WithoutATokenizerItCanBeLookedAt) {
  remove("tokenizer.json");
  expect_refused({"tokenizer.json' is missing"});
  const Checkpoint checkpoint = Checkpoint::open(path(), false);
  EXPECT_EQ(checkpoint.tensors().size(), model_.tensors.size());
  EXPECT_TRUE(checkpoint.tokenizer().tokens.empty());
  remove("config.json");
  expect_error([&] { Checkpoint::open(path(), false); }, {"config.json is missing"});
}

}  // namespace
}  // namespace quire
