// The verbs of the program. Each adds its subcommand to the parser and gives back what runs it.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

namespace quire {

struct Verb {
  CLI::App* app;
  std::function<int()> run;  // the exit code
};

Verb add_chat(CLI::App& program);
Verb add_generate(CLI::App& program);
Verb add_perplexity(CLI::App& program);
Verb add_inspect(CLI::App& program);
Verb add_quantize(CLI::App& program);
Verb add_bench(CLI::App& program);
Verb add_completion(CLI::App& program);
std::vector<Verb> add_verbs(CLI::App& program);  // all of them, in the order of the help

}  // namespace quire
