// The logits that an engine gives after each token of a text.
#pragma once
#include <gtest/gtest.h>

#include "engine/engine.h"

namespace quire {

// (T, V).
inline std::vector<std::vector<float>> logits_of(EngineOptions options, const std::vector<int32_t>& tokens) {
  const auto engine = Engine::open(std::move(options));
  std::vector<std::vector<float>> rows;
  Request request;
  request.prompt = tokens;
  request.max_tokens = 1;
  request.on_logits = [&](int64_t, std::span<const float> row) { rows.emplace_back(row.begin(), row.end()); };
  engine->submit(std::move(request));
  while (engine->busy()) {
    for (const Event& e : engine->step()) EXPECT_EQ(e.error, "");
  }
  return rows;
}

}  // namespace quire
