// `quire bench`: its options, its rows, and what it measures.
#include "apps/bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "apps/bench_table.h"
#include "apps/numbers.h"
#include "tests/apps/program.h"
#include "tests/expect_error.h"
#include "tests/op_test.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

std::vector<int64_t> numbers(const char* text) { return parse_numbers("n", text, 0, 100000); }

TEST(BenchNumbers, ListsAndRanges) {
  EXPECT_THAT(numbers("512"), ElementsAre(512));
  EXPECT_THAT(numbers("128,0,64"), ElementsAre(128, 0, 64));
  EXPECT_THAT(numbers("1-4"), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(numbers("0-100+40"), ElementsAre(0, 40, 80));
  EXPECT_THAT(numbers("1-64*4"), ElementsAre(1, 4, 16, 64));
  EXPECT_THAT(numbers("7,10-12,1-8*2"), ElementsAre(7, 10, 11, 12, 1, 2, 4, 8));
  EXPECT_THAT(numbers("5-5"), ElementsAre(5));
}

TEST(BenchNumbers, SaysWhatIsWrong) {
  expect_error([] { numbers(""); }, {"whole number"});
  expect_error([] { numbers("1,,2"); }, {"whole number"});
  expect_error([] { numbers("4-1"); }, {"1-4"});
  expect_error([] { numbers("1-64*1"); }, {"never ends"});
  expect_error([] { numbers("0-64*2"); }, {"never ends"});
  expect_error([] { numbers("1-64+0"); }, {"between 1 and"});
  expect_error([] { numbers("1-"); }, {"whole number"});
  expect_error([] { numbers("-5"); }, {"between"});
  expect_error([] { numbers("1-100000"); }, {"more than 1000"});
  expect_error([] { numbers("9999999"); }, {"between"});
}

TEST(BenchNumbers, MeanAndDeviation) {
  EXPECT_DOUBLE_EQ(mean({1, 2, 3, 6}), 3.0);
  EXPECT_DOUBLE_EQ(deviation({1, 3}), std::sqrt(2.0));
  EXPECT_EQ(deviation({5}), 0.0);
  EXPECT_EQ(median({9, 1, 5}), 5.0);
  EXPECT_EQ(median({4, 1, 2, 9}), 3.0);
}

TEST(BenchNames, AsLlamaBenchWritesThem) {
  EXPECT_EQ((BenchTest{512, 0, 0, 1}.name()), "pp512");
  EXPECT_EQ((BenchTest{0, 128, 2048, 1}.name()), "tg128 @ d2048");
  EXPECT_EQ((BenchTest{512, 128, 0, 4}.name()), "pp512+tg128");
}

struct BenchProgram : ::testing::Test {
  TempDir dir;
  std::string tiny = write_tiny_gguf(make_tiny_model(), dir.file("tiny.gguf"));

  ProgramResult bench(std::vector<std::string> flags) const {
    std::vector<std::string> arguments = {"bench", "-m", tiny, "-t", "1", "--memory-limit", "256M"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return run_program(arguments);
  }
};

TEST_F(BenchProgram, RunsEveryCombination) {
  const ProgramResult result = bench({"-p", "16,40", "-n", "3", "-d", "0,100", "-pg", "20,2", "--scheme", "own,w8a8",
                                      "--kv", "f16,kv4", "-r", "2", "-b", "32", "-o", "json"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.err, "");  // no progress when nobody watches
  const Json rows = Json::parse(result.out);
  ASSERT_EQ(rows.size(), 2u * 2 * 2 * 4);
  std::vector<std::string> names;
  for (const Json& row : rows) {
    names.push_back(row["test"]);
    EXPECT_EQ(row["samples_ts"].size(), 2u);
    EXPECT_EQ(row["threads"], 1);
    EXPECT_EQ(row["n_batch"], 32);
    EXPECT_GT(row["avg_ts"].get<double>(), 0.0);
    EXPECT_GE(row["stddev_ts"].get<double>(), 0.0);
    EXPECT_GT(row["size"].get<int64_t>(), 0);
    for (const char* field : {"model", "params", "backend", "isa", "scheme", "kv", "n_prompt", "n_gen", "n_depth",
                              "test_time", "n_sequences", "model_filename", "cpu_info"})
      EXPECT_TRUE(row.contains(field)) << field;
  }
  names.resize(8);
  EXPECT_THAT(names, ElementsAre("pp16", "pp40", "tg3", "pp20+tg2", "pp16 @ d100", "pp40 @ d100", "tg3 @ d100",
                                 "pp20+tg2 @ d100"));
  EXPECT_EQ(rows[0]["scheme"], "own");
  EXPECT_EQ(rows[0]["kv"], "kvf16");
  EXPECT_EQ(rows[8]["kv"], "kv4");
  EXPECT_EQ(rows[31]["scheme"], "w8a8");
  EXPECT_EQ(rows[5]["n_prompt"], 40);
  EXPECT_EQ(rows[5]["n_depth"], 100);
}

TEST_F(BenchProgram, ANameIsMadeHarmless) {
  const TinyModel model = make_tiny_model();
  const TempDir other;
  const std::string path = write_tiny_hf(model, other.file("named"));
  nlohmann::ordered_json config = tiny_hf_config(model);
  config["_name_or_path"] = "\x1b[31mx\ny\u202E";
  write_file(path + "/config.json", config.dump());
  for (const char* format : {"md", "csv"}) {
    const ProgramResult result = run_program({"bench", "--model", path, "--threads", "1", "--memory-limit", "256M",
                                              "-p", "4", "-n", "2", "-r", "1", "-o", format});
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("\\x1b[31mx\\ny\\u202e"));
    EXPECT_EQ(result.out.find('\x1b'), std::string::npos);
  }
}

TEST_F(BenchProgram, SameRowsInEveryFormat) {
  const std::vector<std::string> flags = {"-p", "8", "-n", "2", "-r", "1", "-o"};
  const auto in = [&](const char* format) {
    std::vector<std::string> all = flags;
    all.push_back(format);
    const ProgramResult result = bench(all);
    EXPECT_EQ(result.code, 0) << result.err;
    return result.out;
  };
  const std::vector<std::string> md = split(in("md"), '\n'), csv = split(in("csv"), '\n'),
                                 jsonl = split(in("jsonl"), '\n');
  ASSERT_EQ(md.size(), 2u + 2 + 1 + 1 + 1);
  EXPECT_THAT(md[5], HasSubstr("resident at most"));
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(std::count(md[i].begin(), md[i].end(), '|'), 13) << md[i];
  EXPECT_THAT(md[2], HasSubstr("pp8 |"));
  EXPECT_THAT(md[3], HasSubstr("tg2 |"));
  ASSERT_EQ(csv.size(), 1u + 2 + 1);
  ASSERT_EQ(jsonl.size(), 2u + 1);
  const Json row = Json::parse(jsonl[1]);
  EXPECT_EQ(row["test"], "tg2");
  EXPECT_THAT(csv[0], HasSubstr(",n_prompt,n_gen,n_depth,test,"));
  EXPECT_THAT(csv[2], HasSubstr("\"0\",\"2\",\"0\",\"tg2\","));
  EXPECT_EQ(std::count(csv[0].begin(), csv[0].end(), ',') + 1, std::ptrdiff_t(row.size()));
  const Json by_flag = Json::parse(bench({"-p", "8", "-n", "0", "-r", "1", "--json"}).out);
  ASSERT_EQ(by_flag.size(), 1u);
  EXPECT_EQ(by_flag[0]["n_prompt"], 8);
}

TEST_F(BenchProgram, SeveralSequences) {
  const Json rows = Json::parse(
      bench({"-p", "10", "-n", "3", "-pg", "5,2", "-npl", "1-4*2", "-d", "70", "-r", "1", "-b", "16", "--json"}).out);
  ASSERT_EQ(rows.size(), 9u);
  EXPECT_EQ(rows[8]["n_sequences"], 4);
  EXPECT_EQ(rows[8]["test"], "pp5+tg2 @ d70");
}

TEST_F(BenchProgram, ProfileAddsUp) {
  const Json rows = Json::parse(bench({"-p", "64", "-n", "5", "-d", "64", "-b", "32", "-r", "1", "--scheme", "w8a8",
                                       "--profile", "--device", "cpu", "--json"})
                                    .out);
  ASSERT_EQ(rows.size(), 2u);
  for (const Json& row : rows) {
    const Json& profile = row["profile"];
    const int64_t rows_of_x = row["n_prompt"] > 0 ? 32 : 1;
    EXPECT_EQ(profile["steps"], row["n_prompt"] > 0 ? 2 : 5);
    EXPECT_GT(profile["bandwidth_gb_per_s"].get<double>(), 0.0);
    double ms = 0.0, share = 0.0;
    std::map<std::string, Json> ops;
    for (const Json& op : profile["ops"]) {
      ops[op["op"]] = op;
      ms += op["ms"].get<double>();
      share += op["time_share"].get<double>();
      EXPECT_GE(op["ms"].get<double>(), 0.0) << op;
    }
    // Each of the terms is rounded a few times, and so is each sum.
    const double rounding = 8.0 * double(ops.size()) * std::numeric_limits<double>::epsilon();
    EXPECT_NEAR(ms, profile["step_ms"].get<double>(), rounding * ms);
    EXPECT_NEAR(share, 1.0, rounding);
    EXPECT_EQ(profile["all"]["time_share"], 1.0);
    // The tiny model: 2 layers, D 64, F 96, 4 query and 2 kv heads of 16.
    EXPECT_EQ(ops["matmul q+k+v"]["calls"], 2.0);
    EXPECT_EQ(ops["matmul q+k+v"]["operations"], double(2 * rows_of_x * 2 * 64 * (64 + 2 * 32)));
    EXPECT_EQ(ops["matmul down"]["operations"], double(2 * rows_of_x * 2 * 64 * 96));
    EXPECT_EQ(ops["attention"]["calls"], 2.0);
    EXPECT_GT(ops["matmul gate+up"]["bytes"].get<double>(), double(2 * 2 * 96 * 64));  // int8 and scales
    for (const char* op : {"rmsnorm", "rope", "cache append", "glu", "convert", "other"})
      EXPECT_TRUE(ops.count(op)) << op;
  }
  EXPECT_EQ(rows[1]["profile"]["ops"].back()["op"], "other");
  const std::string md = bench({"-p", "0", "-n", "3", "-r", "1", "--profile", "--device", "cpu"}).out;
  EXPECT_THAT(md, HasSubstr("| matmul gate+up"));
  EXPECT_THAT(md, HasSubstr("One step of tg3, own kvf16"));
  EXPECT_THAT(md, HasSubstr("| sample"));
  const ProgramResult csv = bench({"--profile", "-o", "csv"});
  EXPECT_EQ(csv.code, 2);
  EXPECT_THAT(csv.err, HasSubstr("-o md, json or jsonl"));
}

// A step more than was timed may have been seen: all that a profile says is of one step.
TEST(BenchProfiles, AreOfOneStep) {
  const OpTotal op{"matmul o", 12, 0.012, {6000, 600, OpUnit::none}};
  const BenchProfile p{0.015, 5, {op}, 6, {.bytes_per_second = 1e6}};
  const nlohmann::ordered_json json = profile_json(p), first = json["ops"][0], other = json["ops"][1];
  EXPECT_DOUBLE_EQ(json["step_ms"].get<double>(), 3.0);
  EXPECT_EQ(first["calls"], 2.0);
  EXPECT_EQ(first["bytes"], 1000.0);
  EXPECT_EQ(first["operations"], 100.0);
  EXPECT_DOUBLE_EQ(first["ms"].get<double>(), 2.0);
  EXPECT_NEAR(first["time_share"].get<double>(), 2.0 / 3.0, 1e-12);
  EXPECT_NEAR(first["peak_share"].get<double>(), 0.5, 1e-12);
  EXPECT_NEAR(other["ms"].get<double>(), 1.0, 1e-12);
}

TEST_F(BenchProgram, ProfileOnAGpu) {
  if (!gpu_is_here()) GTEST_SKIP() << "NO GPU, NOTHING WAS TESTED ON ONE";
  const Json rows = Json::parse(bench({"-p", "64", "-n", "5", "-d", "64", "-b", "32", "-r", "1", "--scheme", "w8a8",
                                       "--profile", "--device", "cuda", "--json"})
                                    .out);
  ASSERT_EQ(rows.size(), 2u);
  for (const Json& row : rows) {
    const Json& profile = row["profile"];
    for (const char* rate : {"bandwidth_gb_per_s", "f16_gop_per_s", "int8_gop_per_s"})
      EXPECT_GT(profile[rate].get<double>(), 0.0) << rate;
    const int64_t rows_of_x = row["n_prompt"] > 0 ? 32 : 1;
    std::map<std::string, Json> ops;
    for (const Json& op : profile["ops"]) ops[op["op"]] = op;
    EXPECT_EQ(ops["matmul q+k+v"]["calls"], 2.0);
    EXPECT_EQ(ops["matmul q+k+v"]["operations"], double(2 * rows_of_x * 2 * 64 * (64 + 2 * 32)));
    for (const char* op : {"rmsnorm", "matmul o", "attention", "matmul gate+up", "glu", "matmul down"})
      EXPECT_GT(ops[op]["ms"].get<double>(), 0.0) << op;
  }
}

TEST_F(BenchProgram, DummiesHaveContextsOfAnyDepth) {
  const std::string config = dir.file("small.json");
  std::ofstream(config) << R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 300,
    "max_position_embeddings": 64})";
  const ProgramResult result = run_program({"bench", "--dummy", config, "-p", "20", "-n", "3", "-d", "0,1000", "-npl",
                                            "1,3", "-r", "2", "--scheme", "w4a8kv4", "-t", "1", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json rows = Json::parse(result.out);
  ASSERT_EQ(rows.size(), 8u);
  EXPECT_EQ(rows[7]["test"], "tg3 @ d1000");
  EXPECT_EQ(rows[7]["model"], "small");
  for (const Json& row : rows) EXPECT_GT(row["avg_ts"].get<double>(), 0.0);
}

TEST(MachineReport, SaysWhatTheMachineCanDo) {
  const ProgramResult text = run_program({"inspect", "--machine", "-t", "1"});
  EXPECT_EQ(text.code, 0) << text.err;
  for (const char* part : {"cores", "caches", "read bandwidth", "GB/s, 1 thread", "gpu", "instruction set", "build"})
    EXPECT_THAT(text.out, HasSubstr(part));
  const Json json =
      Json::parse(run_program({"inspect", "--machine", "-t", "2", "--json"}, "", {{"QUIRE_ISA", "baseline"}}).out);
  EXPECT_EQ(json["isa"], "baseline");
  EXPECT_EQ(json["isa_available"][0], "baseline");
  EXPECT_GE(json["cores_usable"].get<int>(), 1);
  EXPECT_GT(json["memory_total"].get<int64_t>(), json["memory_available"].get<int64_t>());
  ASSERT_EQ(json["read_bandwidth"].size(), 4u);
  for (const Json& b : json["read_bandwidth"]) EXPECT_GT(b["gb_per_s"].get<double>(), 0.0);
  EXPECT_EQ(json["read_bandwidth"][3]["threads"], 2);
  EXPECT_TRUE(json["gpu"]["names"].is_array());
}

TEST_F(BenchProgram, SaysWhatIsWrong) {
  const auto fails = [&](std::vector<std::string> flags, int code, const char* with) {
    const ProgramResult result = bench(flags);
    EXPECT_EQ(result.code, code) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, HasSubstr(with));
  };
  fails({"-d", "500"}, 1, "the depth (-d) can be at most");
  fails({"-p", "64", "-n", "0", "-d", "0,449"}, 1, "the depth (-d) can be at most 448");
  fails({"-p", "600", "-n", "0"}, 1, "fewer tokens");
  fails({"-p", "0", "-n", "0"}, 1, "nothing to measure");
  fails({"-p", "abc"}, 2, "whole number");
  fails({"-r", "0"}, 2, "repetitions");
  fails({"-o", "sql"}, 2, "md, csv, json or jsonl");
  fails({"--scheme", "w8a8,w5"}, 2, "w5");
  fails({"--kv", "kv9"}, 2, "kv9");
  fails({"-pg", "512"}, 2, "512,128");
  fails({"-m", "no-such-model"}, 1, "no-such-model");
  EXPECT_EQ(bench({"-p", "64", "-n", "0", "-d", "448", "-r", "1"}).code, 0);
}

// What the kernels packed is not kept beside the file: all that is resident stays near the weights as they run.
TEST(BenchRealModel, PeakMemoryStaysNearTheWeights) {
  QUIRE_NEEDS_FILE(test_model());
  for (const char* scheme : {"own", "f16", "w8a8", "w4a8"}) {
    // Scratch and stacks grow with the threads: a number of them that every machine has.
    const ProgramResult result =
        run_program({"bench", "-m", test_model(), "--device", "cpu", "--threads", "2", "--scheme", scheme, "-p", "512",
                     "-n", "4", "-d", "512", "-r", "1", "--json"});
    ASSERT_EQ(result.code, 0) << result.err;
    const Json row = Json::parse(result.out)[0];
    const int64_t peak = row["memory_peak"],
                  needed = row["memory_weights"].get<int64_t>() + row["memory_cache"].get<int64_t>();
    EXPECT_GT(peak, needed / 2);
    EXPECT_LE(double(peak), 1.15 * double(needed) + double(64 << 20)) << scheme << ": " << row;
  }
}

// What a sample counts: every token of the prompt beyond the whole pages of its depth, and every step of every
// sequence.
TEST(Bench, CountsWhatIsComputed) {
  const TempDir dir;
  EngineOptions options;
  options.model = write_tiny_gguf(make_tiny_model(), dir.file("tiny.gguf"));
  options.threads = 1;
  options.chunk = 48;
  options.max_batch = 40;  // nearly a step's tokens: the last ones wait long until they reach their depth
  options.memory_limit = 256 << 20;
  const std::vector<BenchTest> tests = {{100, 0, 0, 1}, {100, 0, 128, 1}, {30, 0, 100, 2}, {0, 9, 0, 3},
                                        {0, 9, 200, 3}, {20, 5, 64, 3},   {0, 9, 200, 1},  {0, 9, 64, 40}};
  for (const BenchTest& t : tests) {
    options.context = std::max(options.context, t.context(options.chunk));
    options.cache_tokens = std::max(options.cache_tokens, t.cache_tokens(options.chunk));
  }
  for (const char* kv : {"f16", "kv4"}) {
    options.kv = kv;
    const auto engine = Engine::open(options);
    Bench bench(*engine);
    std::vector<int64_t> counts;
    for (int repeat = 0; repeat < 2; ++repeat) {
      counts.clear();
      for (const BenchTest& t : tests) {
        const BenchSample sample = bench.run(t);
        EXPECT_GT(sample.seconds, 0.0);
        counts.push_back(sample.tokens);
        EXPECT_FALSE(engine->busy());
      }
    }
    EXPECT_THAT(counts, ElementsAre(100, 100, 2 * (30 + 100 - 64), 27, 27, 3 * 25, 9, 360));
  }
}

}  // namespace
}  // namespace quire
