// The C interface: the same results as the C++ one, and no way to bring it down with what a caller may get wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <map>

#include "engine/engine.h"
#include "engine/quire.h"
#include "tests/temp_dir.h"
#include "tests/tiny_model.h"

namespace quire {
namespace {

using testing::HasSubstr;

struct CApi : testing::Test {
  TempDir dir;
  std::string path = write_tiny_gguf(make_tiny_model(), dir.file("tiny.gguf"));

  quire_options options() const {
    quire_options o{};
    o.size = sizeof o;
    o.model = path.c_str();
    o.scheme = "w8a8kv8";
    o.threads = 1;
    return o;
  }
};

struct Taken {
  std::string text, error;
  std::vector<int32_t> tokens;
  int finish = QUIRE_RUNNING;
  int64_t generated = 0;
};

std::map<int64_t, Taken> take_all(quire_engine* engine) {
  std::map<int64_t, Taken> all;
  quire_event event{};
  event.size = sizeof event;
  int more = 0;
  while ((more = quire_next(engine, &event)) > 0) {
    Taken& taken = all[event.request];
    EXPECT_EQ(event.text[event.text_size], '\0');
    taken.text.append(event.text, event.text_size);
    taken.error += event.error;
    taken.tokens.insert(taken.tokens.end(), event.tokens, event.tokens + event.token_count);
    taken.finish = event.finish;
    taken.generated = event.generated_tokens;
  }
  EXPECT_EQ(more, 0) << quire_last_error();
  return all;
}

TEST_F(CApi, GivesWhatTheEngineGives) {
  EngineOptions plain;
  plain.model = path;
  plain.scheme = "w8a8kv8";
  const auto engine = Engine::open(plain);
  Request request;
  request.prompt = engine->encode_chat({{"user", "Hello <|im_end|>"}});
  request.max_tokens = 12;
  request.ignore_eos = true;
  request.sampler.temperature = 0.8f;
  request.sampler.seed = 5;
  engine->submit(request);
  std::string text;
  while (engine->busy()) {
    for (const Event& e : engine->step()) text += e.text;
  }

  int stages = 0;
  quire_options o = options();
  o.user = &stages;
  o.progress = [](void* user, const char*, int64_t, int64_t) { return ++*static_cast<int*>(user); };
  quire_engine* c = quire_open(&o);
  ASSERT_NE(c, nullptr) << quire_last_error();
  EXPECT_GT(stages, 0);
  quire_request r{};
  r.size = sizeof r;
  r.max_tokens = 12;
  r.ignore_eos = 1;
  r.temperature = 0.8f;
  r.seed = 5;
  const quire_message message = {"user", "Hello <|im_end|>"};
  const int64_t a = quire_submit_chat(c, &message, 1, &r), b = quire_submit(c, "Hello", &r),
                same = quire_submit_tokens(c, request.prompt.data(), request.prompt.size(), &r);
  const char* stop = "e";
  r.temperature = 0;
  r.stop = &stop;
  r.stop_count = 1;
  r.max_tokens = 0;
  const int64_t endless = quire_submit(c, "Hello", &r);
  ASSERT_GT(a, 0);
  ASSERT_GT(b, a);
  quire_cancel(c, b);
  quire_cancel(c, 12345);
  auto all = take_all(c);
  EXPECT_EQ(all.at(a).text, text);
  EXPECT_EQ(all.at(a).finish, QUIRE_LENGTH);
  EXPECT_EQ(all.at(a).tokens.size(), 12u);
  EXPECT_EQ(all.at(a).generated, 12);
  EXPECT_EQ(all.at(same).text, text);
  EXPECT_EQ(all.at(b).finish, QUIRE_CANCELLED);
  EXPECT_EQ(all.at(endless).text.find('e'), std::string::npos);
  EXPECT_NE(all.at(endless).finish, QUIRE_ERROR);
  quire_close(c);
}

TEST_F(CApi, MistakesAreToldNotFatal) {
  quire_options o = options();
  o.model = "/no/such/model.gguf";
  EXPECT_EQ(quire_open(&o), nullptr);
  EXPECT_THAT(quire_last_error(), HasSubstr("/no/such/model.gguf"));
  EXPECT_EQ(quire_open(nullptr), nullptr);
  o = options();
  o.size = 0;
  EXPECT_EQ(quire_open(&o), nullptr);
  EXPECT_THAT(quire_last_error(), HasSubstr("sizeof(quire_options)"));
  o = options();
  o.progress = [](void*, const char*, int64_t, int64_t) { return 0; };
  EXPECT_EQ(quire_open(&o), nullptr) << "given up while loading";
  o = options();
  o.device = "gpu";
  EXPECT_EQ(quire_open(&o), nullptr);
  EXPECT_THAT(quire_last_error(), HasSubstr("auto, cpu, cuda"));

  o = options();
  quire_engine* c = quire_open(&o);
  ASSERT_NE(c, nullptr) << quire_last_error();
  EXPECT_EQ(quire_submit(c, "", nullptr), 0);
  EXPECT_THAT(quire_last_error(), HasSubstr("no tokens"));
  EXPECT_EQ(quire_submit(c, nullptr, nullptr), 0);
  EXPECT_EQ(quire_submit(nullptr, "x", nullptr), 0);
  EXPECT_EQ(quire_submit_tokens(c, nullptr, 3, nullptr), 0);
  const int32_t token = 4000;
  EXPECT_EQ(quire_submit_tokens(c, &token, 1, nullptr), 0);
  EXPECT_THAT(quire_last_error(), HasSubstr("4000"));
  const quire_message unnamed = {nullptr, "x"};
  EXPECT_EQ(quire_submit_chat(c, &unnamed, 1, nullptr), 0);
  quire_request r{};
  EXPECT_EQ(quire_submit(c, "x", &r), 0) << "its size is not set";
  r.size = sizeof r;
  r.top_p = 2.0f;
  EXPECT_EQ(quire_submit(c, "x", &r), 0);
  EXPECT_THAT(quire_last_error(), HasSubstr("top-p 2"));
  r.top_p = 0.0f;
  r.stop_count = 1;
  EXPECT_EQ(quire_submit(c, "x", &r), 0);
  quire_event event{};
  EXPECT_EQ(quire_next(c, &event), -1) << "its size is not set";
  EXPECT_EQ(quire_next(c, nullptr), -1);
  event.size = sizeof event;
  EXPECT_EQ(quire_next(c, &event), 0) << "nothing runs";
  quire_close(c);
  quire_close(nullptr);
}

// A program that was compiled when the structs were shorter.
TEST_F(CApi, ShorterStructsAreTaken) {
  quire_options o = options();
  quire_engine* c = quire_open(&o);
  ASSERT_NE(c, nullptr) << quire_last_error();
  quire_request r{};
  r.size = offsetof(quire_request, temperature);
  r.max_tokens = 2;
  r.temperature = -1.0f;  // beyond the end: not read
  ASSERT_GT(quire_submit(c, "Hello", &r), 0) << quire_last_error();
  quire_event event{};
  event.size = offsetof(quire_event, finish);
  event.generated_tokens = 77;  // beyond the end: not written
  int events = 0;
  while (quire_next(c, &event) == 1) ++events;
  EXPECT_GE(events, 1);
  EXPECT_EQ(event.generated_tokens, 77);
  EXPECT_EQ(event.size, offsetof(quire_event, finish));
  quire_close(c);
}

}  // namespace
}  // namespace quire
