// Runs a parsed template.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/jinja/ast.h"
#include "engine/jinja/value.h"

namespace quire::jinja {

struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string, Value>> variables = {};
};
using ScopePtr = std::shared_ptr<Scope>;

class Evaluator {
 public:
  Evaluator(std::vector<std::pair<std::string, Value>> variables, Budget budget);
  ~Evaluator();

  std::string run(const Body& body);  // Failure, at line()
  int line() const { return line_; }

 private:
  enum class Flow : uint8_t { next, leave, again };  // how a statement ended: normally, by break, by continue

  // evaluator.cpp: statements
  Flow run_body(const Body& body, const ScopePtr& scope, std::string& out);
  Flow run(const Stmt& s, const ScopePtr& scope, std::string& out);
  Flow run_branch(const Stmt& s, const ScopePtr& scope, std::string& out);
  Value loop_items(const Stmt& s, const ScopePtr& scope);
  Flow run_loop(const Stmt& s, const ScopePtr& scope, std::string& out);
  void run_set_block(const Stmt& s, const ScopePtr& scope);
  void run_call_block(const Stmt& s, const ScopePtr& scope, std::string& out);
  void assign(const Stmt& s, Value value, const ScopePtr& scope);
  void unpack(const std::vector<std::string>& targets, const Value& value, Scope& scope);
  Value make_macro(const std::shared_ptr<const Macro>& macro, const ScopePtr& scope);
  Value call_macro(const Callable& callable, const Arguments& arguments, const Value* caller);
  void set(Scope& scope, const std::string& name, Value value);
  Value lookup(const std::string& name, const Scope* scope);

  // expression_evaluator.cpp
  Value eval(const Expr& e, const ScopePtr& scope);
  Value eval_kind(const Expr& e, const ScopePtr& scope);
  Value eval_binary(const Expr& e, const ScopePtr& scope);
  Value eval_compare(const Expr& e, const ScopePtr& scope);
  Value eval_slice(const Expr& e, const ScopePtr& scope);
  Value eval_filter(const Expr& e, const ScopePtr& scope);
  Value eval_list(const Expr& e, const ScopePtr& scope);
  Value eval_call(const Expr& e, const ScopePtr& scope, const Value* caller = nullptr);
  Arguments eval_arguments(const Expr& e, size_t first, const ScopePtr& scope);
  Value call(const Value& function, const Arguments& arguments, const Value* caller);
  Value charged(Value value);  // pays for a fresh value

  struct Nesting {
    explicit Nesting(Evaluator& e);
    ~Nesting() { --evaluator.nesting_; }
    Evaluator& evaluator;
  };

  Budget budget_;
  ScopePtr root_;
  int line_ = 1;
  int nesting_ = 0;
  const std::string* block_text_ = nullptr;  // what a filter without operand works on
  // Namespaces can form cycles; they are emptied at the end. Macros refer weakly to their scopes, which live until
  // then.
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  std::vector<ScopePtr> captured_;
};

}  // namespace quire::jinja
