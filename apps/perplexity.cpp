#include "apps/perplexity.h"

#include <algorithm>
#include <cmath>

#include "apps/interrupt.h"
#include "apps/score.h"
#include "kernels/sample.h"

namespace quire {

ChunkedText chunk_text(const Tokenizer& tokenizer, const std::string& text, int64_t context, int64_t chunks) {
  check(context >= 4, "perplexity: a context of {} tokens leaves nothing to score; the least is 4", context);
  ChunkedText result;
  result.tokens = tokenizer.encode(text, false);
  result.context = context;
  const int64_t there = int64_t(result.tokens.size()) / context;
  check(there > 0, "perplexity: the text has {} tokens, less than one chunk of {}; a smaller --context would do",
        result.tokens.size(), context);
  result.chunks = chunks < 0 ? there : std::min(chunks, there);
  result.tokens.resize(size_t(result.chunks * context));
  if (tokenizer.data().add_bos) {
    for (int64_t c = 0; c < result.chunks; ++c) result.tokens[size_t(c * context)] = tokenizer.data().bos;
  }
  return result;
}

namespace {

// What the chunks in flight write to; each row has its own place, so their order does not matter.
struct Rows {
  std::vector<double> nll, kl, reference_nll;
  std::vector<uint8_t> same;
};

Request chunk_request(const ChunkedText& text, int64_t chunk, const PerplexityJob& job, Rows& rows) {
  const std::span<const int32_t> tokens = text.chunk(chunk);
  auto on_logits = [&text, &job, &rows, chunk, tokens](int64_t position, std::span<const float> logits) {
    const int64_t i = position - text.first();
    const size_t at = size_t(chunk * text.scored() + i);
    const int32_t next = tokens[size_t(position + 1)];
    const double shift = log_sum_exp(logits);
    rows.nll[at] = shift - double(logits[size_t(next)]);
    if (job.writer) job.writer->write_row(chunk, i, logits, shift);
    if (!job.reader) return;
    const KlRow row = job.reader->compare(chunk, i, logits, shift, next);
    rows.kl[at] = row.divergence;
    rows.same[at] = row.same_top;
    rows.reference_nll[at] = row.reference_nll;
  };
  return scoring_request({tokens.begin(), tokens.end()}, text.first(), on_logits);
}

struct Mean {
  double mean, error;  // standard error of the mean
};
Mean mean_of(std::span<const double> values) {
  const double n = double(values.size());
  double sum = 0.0, squares = 0.0;
  for (const double v : values) {
    sum += v;
    squares += v * v;
  }
  const double mean = sum / n, variance = squares / n - mean * mean;
  return {mean, variance > 0 && n > 1 ? std::sqrt(variance / (n - 1)) : 0.0};
}

PerplexityResult summary(const Rows& rows, bool compared) {
  PerplexityResult r;
  const Mean nll = mean_of(rows.nll);
  r.tokens = int64_t(rows.nll.size());
  r.nll = nll.mean;
  r.perplexity = std::exp(nll.mean);
  r.uncertainty = nll.error * r.perplexity;
  r.compared = compared;
  if (!compared) return r;
  const Mean kl = mean_of(rows.kl);
  std::vector<double> sorted = rows.kl;
  std::sort(sorted.begin(), sorted.end());
  r.kl_mean = kl.mean;
  r.kl_uncertainty = kl.error;
  r.kl_median = sorted[sorted.size() / 2];
  r.kl_p99 = sorted[std::min(sorted.size() - 1, sorted.size() * 99 / 100)];
  r.kl_max = sorted.back();
  r.same_top = double(std::count(rows.same.begin(), rows.same.end(), 1)) / double(rows.same.size());
  r.reference_perplexity = std::exp(mean_of(rows.reference_nll).mean);
  return r;
}

}  // namespace

PerplexityResult measure_perplexity(Engine& engine, const ChunkedText& text, const PerplexityJob& job) {
  check(text.chunks > 0, "perplexity: no chunks to score");
  const size_t size = size_t(text.chunks * text.scored());
  Rows rows;
  rows.nll.assign(size, 0.0);
  if (job.reader) {
    rows.kl.assign(size, 0.0);
    rows.reference_nll.assign(size, 0.0);
    rows.same.assign(size, 0);
  }
  int64_t submitted = 0, done = 0;
  while (done < text.chunks) {
    while (submitted < text.chunks && submitted - done < std::max<int64_t>(1, job.parallel))
      engine.submit(chunk_request(text, submitted++, job, rows));
    if (interrupted()) throw Interrupted();
    for (const Event& event : engine.step()) {
      check(event.finish != Finish::error, "{}", event.error);
      if (event.finish == Finish::none) continue;
      ++done;
      // Chunks of equal length finish in the order they were submitted, so the first `done` are complete.
      const auto scored = std::span<const double>(rows.nll).first(size_t(done * text.scored()));
      if (job.on_chunk) job.on_chunk(done, text.chunks, std::exp(mean_of(scored).mean));
    }
  }
  return summary(rows, job.reader != nullptr);
}

}  // namespace quire
