#include "apps/verbs.h"

namespace quire {

std::vector<Verb> add_verbs(CLI::App& program) {
  return {add_chat(program),     add_generate(program), add_perplexity(program), add_inspect(program),
          add_quantize(program), add_bench(program),    add_completion(program)};
}

}  // namespace quire
