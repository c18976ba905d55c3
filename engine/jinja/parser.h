// Tokens to a syntax tree.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "engine/jinja/ast.h"
#include "engine/jinja/lexer.h"

namespace quire::jinja {

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Body parse();  // the whole template; Error with the line

 private:
  // parser.cpp: statements
  Body body_until(const std::vector<std::string_view>& ends);
  std::unique_ptr<Stmt> statement();
  std::unique_ptr<Stmt> if_statement(int line);
  std::unique_ptr<Stmt> for_statement(int line);
  std::unique_ptr<Stmt> set_statement(int line);
  std::unique_ptr<Stmt> macro_statement(int line);
  std::unique_ptr<Stmt> call_statement(int line);
  std::vector<Parameter> parameters();
  std::vector<std::string> targets();
  void end_block(std::string_view name);

  // expression_parser.cpp
  ExprPtr tuple_or_expression(bool with_condition);
  ExprPtr expression(bool with_condition = true);
  ExprPtr either();
  ExprPtr both();
  ExprPtr negation();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr concatenation();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filters = true);
  ExprPtr primary();
  ExprPtr list_literal();
  ExprPtr dict_literal();
  ExprPtr parenthesized();
  ExprPtr postfixes(ExprPtr e);
  ExprPtr filters_and_tests(ExprPtr e);
  ExprPtr filters(ExprPtr e);
  ExprPtr test(ExprPtr e);
  ExprPtr attribute(ExprPtr e);
  ExprPtr subscript(ExprPtr e);
  void arguments(Expr& e);
  ExprPtr node(Expr::Kind kind, int line, std::string text = {}, ExprPtr first = nullptr,
               ExprPtr second = nullptr) const;
  void deepen(Expr& e, ExprPtr item) const;  // adds an item, and holds the depth of the tree to what recursion can take

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  int line() const { return peek().line; }
  Token take();
  bool take_op(std::string_view op);
  bool take_name(std::string_view name);
  void expect_op(std::string_view op);
  void expect_name(std::string_view name);
  void expect(Token::Kind kind, const char* what);
  std::string identifier(const char* what);

  // Counts the recursion of the parser itself.
  struct Nesting {
    explicit Nesting(Parser& p);
    ~Nesting() { --parser.nesting_; }
    Parser& parser;
  };

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  int loops_ = 0;  // for statements around this place, up to the next macro
};

}  // namespace quire::jinja
