#include "engine/jinja/parser.h"

#include <algorithm>

#include "base/error.h"

namespace quire::jinja {

namespace {

constexpr int kMaxNesting = 100;

std::unique_ptr<Stmt> make(Stmt::Kind kind, int line) {
  auto s = std::make_unique<Stmt>();
  s->kind = kind;
  s->line = line;
  return s;
}

}  // namespace

Parser::Nesting::Nesting(Parser& p) : parser(p) {
  if (++parser.nesting_ > kMaxNesting) {
    --parser.nesting_;
    fail_at(parser.line(), fmt::format("statements and expressions nest more than {} deep", kMaxNesting));
  }
}

Token Parser::take() {
  Token t = peek();
  if (t.kind != Token::Kind::end) ++at_;
  return t;
}

bool Parser::take_op(std::string_view op) {
  if (!peek().is_op(op)) return false;
  ++at_;
  return true;
}

bool Parser::take_name(std::string_view name) {
  if (!peek().is_name(name)) return false;
  ++at_;
  return true;
}

void Parser::expect_op(std::string_view op) {
  if (!take_op(op)) fail_at(line(), fmt::format("expected '{}', not {}", op, describe(peek())));
}

void Parser::expect_name(std::string_view name) {
  if (!take_name(name)) fail_at(line(), fmt::format("expected '{}', not {}", name, describe(peek())));
}

void Parser::expect(Token::Kind kind, const char* what) {
  if (peek().kind != kind) fail_at(line(), fmt::format("expected {}, not {}", what, describe(peek())));
  ++at_;
}

std::string Parser::identifier(const char* what) {
  if (peek().kind != Token::Kind::name) fail_at(line(), fmt::format("expected {}, not {}", what, describe(peek())));
  static const char* const kReserved[] = {"true", "false", "none", "True", "False", "None", "and",
                                          "or",   "not",   "in",   "is",   "if",    "else"};
  for (const char* word : kReserved)
    if (peek().text == word) fail_at(line(), fmt::format("'{}' cannot be {}", word, what));
  return take().text;
}

Body Parser::parse() { return body_until({}); }

// Statements up to (and without) a block that begins with one of `ends`; up to the end of the template if there are
// none.
Body Parser::body_until(const std::vector<std::string_view>& ends) {
  const Nesting nesting(*this);
  Body body;
  while (true) {
    const Token& t = peek();
    switch (t.kind) {
      case Token::Kind::end:
        if (ends.empty()) return body;
        fail_at(t.line, fmt::format("the template ends before '{}'", ends.back()));
      case Token::Kind::data:
        body.push_back(make(Stmt::Kind::data, t.line));
        body.back()->text = take().text;
        break;
      case Token::Kind::print_begin:
        body.push_back(make(Stmt::Kind::print, take().line));
        body.back()->expr = tuple_or_expression(true);
        expect(Token::Kind::print_end, "'}}'");
        break;
      default: {
        expect(Token::Kind::block_begin, "a block");
        const std::string name = peek().kind == Token::Kind::name ? peek().text : "";
        if (std::find(ends.begin(), ends.end(), name) != ends.end()) return body;
        body.push_back(statement());
      }
    }
  }
}

void Parser::end_block(std::string_view name) {
  expect_name(name);
  expect(Token::Kind::block_end, "'%}'");
}

std::unique_ptr<Stmt> Parser::statement() {
  const int line = this->line();
  if (peek().kind != Token::Kind::name)
    fail_at(line, fmt::format("expected the name of a statement, not {}", describe(peek())));
  const std::string name = take().text;
  if (name == "if") return if_statement(line);
  if (name == "for") return for_statement(line);
  if (name == "set") return set_statement(line);
  if (name == "macro") return macro_statement(line);
  if (name == "call") return call_statement(line);
  if (name == "generation") {
    auto s = make(Stmt::Kind::scope, line);
    expect(Token::Kind::block_end, "'%}'");
    s->body = body_until({"endgeneration"});
    end_block("endgeneration");
    return s;
  }
  if (name == "break" || name == "continue") {
    if (loops_ == 0) fail_at(line, fmt::format("'{}' outside of a loop", name));
    expect(Token::Kind::block_end, "'%}'");
    return make(name == "break" ? Stmt::Kind::leave : Stmt::Kind::next, line);
  }
  fail_at(line,
          fmt::format(
              "statement '{}' is not supported here (if, for, set, macro, call, generation, break, continue, raw are)",
              name));
}

std::unique_ptr<Stmt> Parser::if_statement(int line) {
  auto s = make(Stmt::Kind::branch, line);
  do {
    ExprPtr condition = tuple_or_expression(false);
    if (peek().is_name("if")) fail_at(this->line(), "an 'if' inside of a condition needs parentheses");
    expect(Token::Kind::block_end, "'%}'");
    s->branches.emplace_back(std::move(condition), body_until({"elif", "else", "endif"}));
  } while (take_name("elif"));
  if (take_name("else")) {
    expect(Token::Kind::block_end, "'%}'");
    s->otherwise = body_until({"endif"});
  }
  end_block("endif");
  return s;
}

// name, or name, name ... with or without parentheses
std::vector<std::string> Parser::targets() {
  const bool parentheses = take_op("(");
  std::vector<std::string> names = {identifier("the name of a variable")};
  bool comma = false;
  while (take_op(",")) {
    comma = true;
    if (peek().kind != Token::Kind::name || peek().is_name("in")) break;
    names.push_back(identifier("the name of a variable"));
  }
  if (parentheses) expect_op(")");
  if (comma && names.size() == 1) fail_at(line(), "a comma after a single variable is not supported");
  return names;
}

std::unique_ptr<Stmt> Parser::for_statement(int line) {
  auto s = make(Stmt::Kind::loop, line);
  s->targets = targets();
  expect_name("in");
  s->expr = tuple_or_expression(false);
  if (take_name("if")) s->condition = expression();
  if (peek().is_name("recursive")) fail_at(this->line(), "recursive loops are not supported");
  expect(Token::Kind::block_end, "'%}'");
  ++loops_;
  s->body = body_until({"else", "endfor"});
  --loops_;
  if (take_name("else")) {
    expect(Token::Kind::block_end, "'%}'");
    s->otherwise = body_until({"endfor"});
  }
  end_block("endfor");
  return s;
}

std::unique_ptr<Stmt> Parser::set_statement(int line) {
  auto s = make(Stmt::Kind::set, line);
  s->targets = targets();
  if (s->targets.size() == 1 && take_op(".")) s->attribute = identifier("the name of an attribute");
  if (take_op("=")) {
    s->expr = tuple_or_expression(true);
    expect(Token::Kind::block_end, "'%}'");
    return s;
  }
  s->kind = Stmt::Kind::set_block;
  if (s->targets.size() > 1) fail_at(line, "a block can be set to one variable only");
  if (peek().is_op("|")) s->expr = filters(nullptr);
  expect(Token::Kind::block_end, "'=', a filter or '%}'");
  s->body = body_until({"endset"});
  end_block("endset");
  return s;
}

std::vector<Parameter> Parser::parameters() {
  std::vector<Parameter> out;
  expect_op("(");
  while (!peek().is_op(")")) {
    if (!out.empty()) expect_op(",");
    if (peek().is_op(")")) break;
    Parameter p{identifier("the name of a parameter"), nullptr};
    for (const Parameter& other : out)
      if (other.name == p.name) fail_at(line(), fmt::format("parameter '{}' comes twice", p.name));
    if (take_op("="))
      p.fallback = expression();
    else if (!out.empty() && out.back().fallback)
      fail_at(line(), fmt::format("parameter '{}' needs a default, as the one before it has one", p.name));
    out.push_back(std::move(p));
  }
  expect_op(")");
  return out;
}

std::unique_ptr<Stmt> Parser::macro_statement(int line) {
  auto s = make(Stmt::Kind::macro, line);
  auto macro = std::make_shared<Macro>();
  macro->name = identifier("the name of a macro");
  macro->parameters = parameters();
  expect(Token::Kind::block_end, "'%}'");
  const int loops = std::exchange(loops_, 0);
  macro->body = body_until({"endmacro"});
  loops_ = loops;
  end_block("endmacro");
  s->macro = std::move(macro);
  return s;
}

// {% call(parameters) macro(arguments) %} body {% endcall %}
std::unique_ptr<Stmt> Parser::call_statement(int line) {
  auto s = make(Stmt::Kind::call_block, line);
  auto caller = std::make_shared<Macro>();
  caller->name = "caller";
  if (peek().is_op("(")) caller->parameters = parameters();
  s->expr = expression();
  if (s->expr->kind != Expr::Kind::call) fail_at(line, "'call' needs a call of a macro");
  expect(Token::Kind::block_end, "'%}'");
  const int loops = std::exchange(loops_, 0);
  caller->body = body_until({"endcall"});
  loops_ = loops;
  end_block("endcall");
  s->macro = std::move(caller);
  return s;
}

}  // namespace quire::jinja
