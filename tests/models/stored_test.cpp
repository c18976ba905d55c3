// Directories that `quantize` writes: they run as quantizing at load does, and nothing else is read from them.
#include "models/stored.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/models/quantized_model.h"
#include "tests/temp_dir.h"
#include "tests/test_data.h"

namespace quire {
namespace {

using Ordered = nlohmann::ordered_json;

TEST(Stored, RunsBitForBitAsQuantizingAtLoad) {
  struct Source {
    const char* name;
    TinyModelOptions model;
    bool gguf;
  };
  const std::vector<Source> sources = {
      {"tied gguf", {.embedding = id<Q8_0>, .matrices = id<Q4_1>}, true},
      {"untied gguf with biases", {.tied = false, .attention_bias = true, .mlp_bias = true, .matrices = id<F16>}, true},
      {"tied directory", {.attention_bias = true}, false},
      {"untied directory", {.tied = false, .embedding = id<BF16>, .matrices = id<BF16>}, false},
  };
  for (const Source& s : sources) {
    const TempDir dir;
    const TinyModel model = make_tiny_model(s.model);
    const std::string source =
        s.gguf ? write_tiny_gguf(model, dir.file("tiny.gguf")) : write_tiny_hf(model, dir.file("tiny"));
    for (const char* scheme : {"w8a8", "w8a16", "w8a8g64", "w4a8", "w4a16", "w4g128a8", "w4rowa8", "w4rowa16", "w3a16",
                               "w3a8", "w2a16", "w2a8g64", "w6a16", "wfp8a16", "f16", "bf16", "f32"}) {
      SCOPED_TRACE(std::string(s.name) + " " + scheme);
      const std::string out = dir.file(scheme);
      quantize(source, scheme, out);
      const auto at_load = open_small(source, scheme), stored = open_small(out), named = open_small(out, scheme);
      const Computed wanted = compute(*at_load);
      EXPECT_EQ(wanted.logits.size(), 70u * 300u);
      EXPECT_TRUE(compute(*stored) == wanted);
      EXPECT_TRUE(compute(*named) == wanted);  // the same formats are not quantized again
      EXPECT_EQ(stored->scheme().name, scheme);
      EXPECT_EQ(stored->description(), at_load->description());
      EXPECT_EQ(stored->memory().weights, at_load->memory().weights);
      ModelConfig config = stored->config();
      EXPECT_EQ(config.name, "tiny");
      EXPECT_TRUE(config == at_load->config());
      EXPECT_TRUE(stored->tokenizer().data() == at_load->tokenizer().data());
    }
  }
}

TEST(Stored, RunsWithItsCacheUnlessToldOtherwise) {
  const TempDir dir;
  const std::string source = write_tiny_gguf(make_tiny_model({.head_dim = 32}), dir.file("tiny.gguf"));
  const std::string out = dir.file("out");
  quantize(source, "w4a8kv4", out);
  const auto expect = [&](const char* scheme, const char* kv, const char* name, const char* same_as) {
    SCOPED_TRACE(name);
    const auto stored = open_small(out, scheme, kv), at_load = open_small(source, same_as);
    EXPECT_EQ(stored->scheme().name, name);
    EXPECT_EQ(stored->scheme().kv.name, at_load->scheme().kv.name);
    EXPECT_TRUE(compute(*stored) == compute(*at_load));
  };
  expect("", "", "w4a8kv4", "w4a8kv4");
  expect("own", "", "w4a8kv4", "w4a8kv4");
  expect("", "kv8", "w4a8kv8", "w4a8kv8");
  expect("kv8", "", "w4a8kv8", "w4a8kv8");
  expect("", "f16", "w4a8", "w4a8");
  expect("w4a8", "", "w4a8", "w4a8");
  // Other activations on the weights that are there; other weights are made of those that are there.
  const auto other = open_small(out, "a8g64");
  EXPECT_EQ(to_string(other->scheme().activation), "int8/g64");
  EXPECT_FALSE(compute(*other) == compute(*open_small(out)));
  EXPECT_FALSE(compute(*open_small(out, "w2a8")) == compute(*open_small(out)));
}

// What is stored is exactly what encoding makes, for every codec there is.
TEST(Stored, PlanesHoldEveryByteOfEveryCodec) {
  for (int i = 0; i < Codecs::kSize; ++i) {
    const Codec codec = Codec(i);
    SCOPED_TRACE(info(codec).name);
    const bool grouped = info(codec).group == 0 && info(codec).row_bytes(1, 1).scale > 0;
    const Format format{codec, info(codec).group > 0 ? info(codec).group : grouped ? 16 : 0};
    const OwnedTensor t = make_tensor(format, 5, 96);
    int64_t bytes = 0;
    std::set<std::string> suffixes;
    for (const StoredPlane& p : stored_planes(format, 5, 96)) {
      const Plane& plane = t.tensor.*p.plane;
      ASSERT_NE(plane.ptr, nullptr) << p.suffix;
      if (p.plane != &Tensor::table) {
        EXPECT_EQ(plane.pitch, p.row_bytes) << p.suffix;
      }
      int64_t values = 1;
      for (const int64_t d : p.shape) values *= d;
      EXPECT_EQ(values * p.alignment, p.bytes()) << p.suffix;
      EXPECT_TRUE(suffixes.insert(p.suffix).second);
      bytes += p.bytes();
    }
    const int64_t table = info(codec).table_bytes * (info(codec).table_shared ? 1 : 96);
    EXPECT_EQ(bytes, tensor_bytes(format, 5, 96) + table);
  }
}

TEST(Stored, TheSchemeSurvives) {
  for (const char* text : {"w8a8", "w4g128a8kv4", "w6a16", "w3a8g64kv2", "wfp8a16kvfp8", "f16"}) {
    const Scheme scheme = parse_scheme(text);
    const Json config = {{"quantization_config", Json::parse(stored_scheme_json(scheme).dump())}};
    const std::optional<Scheme> read = read_stored_scheme(JsonObject(config, "config.json"));
    ASSERT_TRUE(read.has_value()) << text;
    EXPECT_EQ(read->name, scheme.name);
    EXPECT_FALSE(read->native || read->native_activation);
    EXPECT_TRUE(read->weight == scheme.weight && read->embedding == scheme.embedding &&
                read->activation == scheme.activation)
        << text;
    EXPECT_EQ(read->kv.name, scheme.kv.name);
  }
  EXPECT_FALSE(read_stored_scheme(JsonObject(Json::object(), "config.json")).has_value());
}

// One safetensors file, to be spoiled.
struct Parts {
  Ordered header;
  std::string data;

  explicit Parts(const std::string& path) {
    const std::string file = read_text_file(path, 1 << 28);
    uint64_t length;
    std::memcpy(&length, file.data(), 8);
    header = Ordered::parse(file.substr(8, length));
    data = file.substr(8 + length);
  }
  void write(const std::string& path) const { write_file(path, SafetensorsWriter::file_of(header.dump(), data)); }
  char* at(const std::string& name) { return data.data() + header[name]["data_offsets"][0].get<size_t>(); }
};

class StoredFiles : public testing::Test {
 protected:
  StoredFiles() { quantize(source_, "w4a8", out_); }
  std::string in_out(const std::string& name) const { return out_ + "/" + name; }
  void expect_refused(const Parts& parts, std::initializer_list<std::string> texts) const {
    parts.write(in_out("model.safetensors"));
    expect_error([&] { Checkpoint::open(out_); }, texts);
  }
  void expect_config_refused(const char* key, const Ordered& value, std::initializer_list<std::string> texts) const {
    SCOPED_TRACE(key + value.dump());
    const std::string path = in_out("config.json"), good = read_text_file(path, 1 << 20);
    Ordered config = Ordered::parse(good);
    config["quantization_config"][key] = value;
    write_file(path, config.dump());
    expect_error([&] { Checkpoint::open(out_); }, texts);
    write_file(path, good);
  }

  TempDir dir_;
  std::string source_ = write_tiny_gguf(make_tiny_model({.layers = 1}), dir_.file("tiny.gguf"));
  std::string out_ = dir_.file("out");
};

TEST_F(StoredFiles, HavePlanesAsEntries) {
  const Checkpoint c = Checkpoint::open(out_);
  ASSERT_TRUE(c.stored_scheme().has_value());
  EXPECT_EQ(c.stored_scheme()->name, "w4a8");
  EXPECT_EQ(describe(c.get("model.layers.0.mlp.down_proj.weight")), "qoq4/g64 (64, 96)");
  EXPECT_EQ(describe(c.get("model.embed_tokens.weight")), "int8 (300, 64)");
  EXPECT_EQ(describe(c.get("model.norm.weight")), "f32 (1, 64)");
  const Parts parts(in_out("model.safetensors"));
  const auto entry = [&](const std::string& name) { return parts.header[name]; };
  const std::string down = "model.layers.0.mlp.down_proj.weight";
  EXPECT_EQ(entry(down)["dtype"], "U8");
  EXPECT_EQ(entry(down)["shape"], (Ordered{64, 48}));
  EXPECT_EQ(entry(down + "_scale")["dtype"], "F32");
  EXPECT_EQ(entry(down + "_scale")["shape"], (Ordered{64, 1}));
  EXPECT_EQ(entry(down + "_aux")["shape"], (Ordered{64, 4}));
  EXPECT_EQ(entry("model.embed_tokens.weight")["dtype"], "I8");
  EXPECT_EQ(entry("model.norm.weight")["shape"], (Ordered{64}));
}

TEST_F(StoredFiles, ThatWereTamperedWithAreRefusedByName) {
  const Parts good(in_out("model.safetensors"));
  const std::string up = "model.layers.0.mlp.up_proj.weight", aux = up + "_aux", scale = up + "_scale";
  Parts p = good;
  p.header.erase(aux);
  expect_refused(p, {aux, "is missing"});
  p = good;
  p.header.erase(up);
  expect_refused(p, {aux, "is not part of the network"});
  p = good;
  p.header["model.layers.0.mlp.up_proj.weight_high"] = p.header[aux];
  p.header.erase(aux);
  expect_refused(p, {aux, "is missing"});
  p = good;
  p.header[scale]["dtype"] = "I32";
  expect_refused(p, {scale, "I32", "F32"});
  p = good;
  p.header[up]["shape"] = {32, 96};
  expect_refused(p, {up, "[32,96]", "[96,32]"});
  p = good;
  p.header[aux]["data_offsets"] = p.header[up]["data_offsets"];
  expect_refused(p, {aux});
  p = good;
  p.header["model.layers.0.mlp.other.weight"] = p.header[aux];
  p.header["model.layers.0.mlp.other.weight"]["data_offsets"] = {p.data.size(), p.data.size() + 192};
  p.data.append(192, 'x');
  expect_refused(p, {"other.weight", "is not part of the network"});
  const float infinite = INFINITY, none = NAN;
  for (const float bad : {infinite, none}) {
    p = good;
    std::memcpy(p.at(scale) + 8, &bad, 4);
    expect_refused(p, {scale.substr(0, up.size()), "not finite in row 2"});
  }
  p = good;
  p.at(aux)[2] = 20;  // 15 * 20 does not fit in a byte
  expect_refused(p, {up, "out of range in row 1"});
  good.write(in_out("model.safetensors"));
  EXPECT_NO_THROW(Checkpoint::open(out_));
}

TEST_F(StoredFiles, WhoseConfigurationCannotBeAreRefused) {
  expect_config_refused("quant_method", "hqq", {"'hqq' cannot be read"});
  expect_config_refused("format_version", 2, {"format_version 2", "newer"});
  expect_config_refused("format_version", nullptr, {"'format_version' is missing"});
  expect_config_refused("scheme", "w4 a8\x1b[2J", {"'scheme' must be a word"});
  expect_config_refused("weight_format", "int5", {"'weight_format'", "int5"});
  expect_config_refused("weight_format", "e8p", {"e8p", "only read"});
  expect_config_refused("weight_format", nullptr, {"'weight_format' is missing"});
  expect_config_refused("weight_format", "qoq4/g7", {"groups of 7"});
  expect_config_refused("weight_format", "qoq4/g2147483632", {"groups of 2147483632"});
  expect_config_refused("weight_format", "qoq4/g32", {"_aux", "[64,4]"});
  expect_config_refused("weight_format", "int4/g64", {"weight_scale", "[64,1]"});
  expect_config_refused("weight_format", "f16", {"U8", "F16"});
  expect_config_refused("embedding_format", "int8/g32", {"embed_tokens.weight_scale"});
  expect_config_refused("activation_format", "int4", {"activations in int4"});
  expect_config_refused("kv", "kv5", {"kv5"});
}

// Any file cut short or with a flipped bit: one Error, or a model that still runs.
TEST_F(StoredFiles, SpoiledFilesEndInOneError) {
  std::filesystem::remove_all(out_);
  WriteOptions options;
  options.output = out_;
  options.shard_bytes = 30000;
  quantize(source_, "w3a8", options);
  const auto good = contents_of(out_);
  EXPECT_GE(good.size(), 7u);  // four of text, the index, two shards or more
  uint64_t state = 7;
  const auto random = [&](size_t below) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return size_t(state % below);
  };
  int refused = 0, opened = 0;
  const auto attempt = [&](const std::string& name, const std::string& bytes) {
    write_file(in_out(name), bytes);
    try {
      const auto engine = open_small(out_);
      Request r;
      r.prompt = {1, 2};
      r.max_tokens = 1;
      engine->submit(std::move(r));
      while (engine->busy()) engine->step();
      ++opened;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()), "");
      ++refused;
    }
  };
  for (const auto& [name, bytes] : good) {
    SCOPED_TRACE(name);
    for (int i = 0; i < 8; ++i) attempt(name, bytes.substr(0, random(bytes.size())));
    for (int i = 0; i < 40; ++i) {
      std::string flipped = bytes;
      // Half of them among the first bytes, where the headers are.
      flipped[random(i % 2 ? bytes.size() : std::min<size_t>(bytes.size(), 1000))] ^= char(1 << random(8));
      attempt(name, flipped);
    }
    write_file(in_out(name), bytes);
  }
  EXPECT_GT(refused, 100);
  EXPECT_GT(opened, 0);
}

// A stored table, whose group of q and k has the same codebook, is read too: the reader knows planes, not schemes.
TEST_F(StoredFiles, ReadsFormatsThatNoSchemeNamesYet) {
  const TinyModel model = make_tiny_model({.layers = 1});
  Scheme scheme = parse_scheme("w8a16");
  for (const char* format : {"int4/g32", "uint4o/g32", "q4_0", "uint3o/g16", "nuq4v/g32"}) {
    SCOPED_TRACE(format);
    scheme.weight = parse_format(format);
    Ordered config = Ordered::parse(read_text_file(in_out("config.json"), 1 << 20));
    config["quantization_config"] = stored_scheme_json(scheme);
    write_file(in_out("config.json"), config.dump());
    SafetensorsWriter writer;
    std::map<std::string, OwnedTensor> made;
    for (const TinyTensor& t : model.tensors) {
      const Tensor& x = t.weight.tensor;
      OwnedTensor y = make_tensor(stored_format(scheme, t.name, x.rows == 1), x.rows, x.cols);
      if (y.tensor.table.ptr) {
        for (int i = 0; i < 16; ++i) reinterpret_cast<float*>(y.tensor.table.ptr)[i] = float(i) / 8 - 1;
      }
      for (int64_t r = 0; r < x.rows; ++r) {
        info(y.tensor.codec).encode(y.tensor, r, 1, x.data.row<const float>(r), x.cols, ScaleSource::found);
      }
      for (const StoredPlane& p : stored_planes(format_of(y.tensor), x.rows, x.cols)) {
        writer.tensor(t.name + p.suffix, p.dtype, p.shape,
                      {reinterpret_cast<const char*>((y.tensor.*p.plane).ptr), size_t(p.bytes())});
      }
      made[t.name] = std::move(y);
    }
    for (const size_t shift : {0, 1, 2}) {  // what is not aligned is copied
      writer.shift = shift;
      write_file(in_out("model.safetensors"), writer.file());
      const Checkpoint c = Checkpoint::open(out_);
      for (const TinyTensor& t : model.tensors) {
        const Tensor &x = c.get(t.name), &y = made[t.name].tensor;
        ASSERT_EQ(describe(x), describe(y));
        std::vector<float> a(size_t(x.cols)), b(size_t(x.cols));
        for (int64_t r = 0; r < x.rows; ++r) {
          info(x.codec).decode(x, r, 0, x.cols, a.data());
          info(y.codec).decode(y, r, 0, y.cols, b.data());
          ASSERT_EQ(a, b) << t.name << " row " << r;
        }
      }
    }
  }
}

TEST(StoredRealModel, TokenizerAndConfigurationComeBack) {
  QUIRE_NEEDS_FILE(test_model());
  const TempDir dir;
  quantize(test_model(), "w2a16", dir.file("out"));
  const Checkpoint source = Checkpoint::open(test_model()), stored = Checkpoint::open(dir.file("out"));
  EXPECT_TRUE(stored.config() == source.config());
  EXPECT_TRUE(stored.tokenizer() == source.tokenizer());
  EXPECT_EQ(stored.tensors().size(), source.tensors().size());
}

}  // namespace
}  // namespace quire
