// embed MODEL QUESTION: answers a question with Quire as a library.
#include <cstdio>

#include "engine/engine.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    quire::EngineOptions options;
    options.model = argv[1];
    options.scheme = "w8a8kv8";
    auto engine = quire::Engine::open(options);
    quire::Request request;
    request.prompt = engine->encode_chat({{"user", argv[2]}});
    request.max_tokens = 64;
    engine->submit(std::move(request));  // more may be submitted at any time; they run together
    while (engine->busy())
      for (const quire::Event& event : engine->step()) std::fwrite(event.text.data(), 1, event.text.size(), stdout);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
