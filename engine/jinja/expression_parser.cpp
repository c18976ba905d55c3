// Expressions, from the loosest binding to the tightest. The order is Jinja's, not Python's: `~` binds tighter than
// `+`, and a filter applies to what a sign has made of its operand.
#include <algorithm>

#include "base/error.h"
#include "engine/jinja/parser.h"

namespace quire::jinja {

namespace {
constexpr int kMaxDepth = 200;  // of a syntax tree, also where loops build it (a + b + c ...)
}

void Parser::deepen(Expr& e, ExprPtr item) const {
  if (item) e.depth = std::max(e.depth, item->depth + 1);
  if (e.depth > kMaxDepth) fail_at(e.line, fmt::format("an expression is more than {} operations deep", kMaxDepth));
  e.items.push_back(std::move(item));
}

ExprPtr Parser::node(Expr::Kind kind, int line, std::string text, ExprPtr first, ExprPtr second) const {
  auto e = std::make_unique<Expr>();
  e->kind = kind;
  e->line = line;
  e->text = std::move(text);
  if (first) deepen(*e, std::move(first));
  if (second) deepen(*e, std::move(second));
  return e;
}

// a, b, c without parentheses is a tuple
ExprPtr Parser::tuple_or_expression(bool with_condition) {
  const int line = this->line();
  ExprPtr first = expression(with_condition);
  if (!peek().is_op(",")) return first;
  ExprPtr tuple = node(Expr::Kind::tuple, line, "", std::move(first));
  while (take_op(",")) {
    const Token& t = peek();
    if (t.kind == Token::Kind::print_end || t.kind == Token::Kind::block_end || t.is_op(")")) break;
    deepen(*tuple, expression(with_condition));
  }
  return tuple;
}

ExprPtr Parser::expression(bool with_condition) {
  const Nesting nesting(*this);
  ExprPtr e = either();
  while (with_condition && peek().is_name("if")) {
    const int line = take().line;
    ExprPtr condition = either();
    ExprPtr otherwise = take_name("else") ? expression() : nullptr;
    ExprPtr ternary = node(Expr::Kind::ternary, line, "", std::move(condition), std::move(e));
    deepen(*ternary, std::move(otherwise));
    e = std::move(ternary);
  }
  return e;
}

ExprPtr Parser::either() {
  ExprPtr e = both();
  while (peek().is_name("or")) {
    const int line = take().line;
    e = node(Expr::Kind::binary, line, "or", std::move(e), both());
  }
  return e;
}

ExprPtr Parser::both() {
  ExprPtr e = negation();
  while (peek().is_name("and")) {
    const int line = take().line;
    e = node(Expr::Kind::binary, line, "and", std::move(e), negation());
  }
  return e;
}

ExprPtr Parser::negation() {
  if (!peek().is_name("not")) return comparison();
  const Nesting nesting(*this);
  const int line = take().line;
  return node(Expr::Kind::unary, line, "not", negation());
}

ExprPtr Parser::comparison() {
  ExprPtr first = sum();
  ExprPtr chain;
  while (true) {
    const Token& t = peek();
    std::string op;
    for (const char* o : {"==", "!=", "<", "<=", ">", ">="})
      if (t.is_op(o)) op = o;
    if (t.is_name("in")) op = "in";
    if (t.is_name("not") && peek(1).is_name("in")) op = "not in";
    if (op.empty()) return chain ? std::move(chain) : std::move(first);
    const int line = take().line;
    if (op == "not in") take();
    if (!chain) chain = node(Expr::Kind::compare, line, "", std::move(first));
    chain->operators.push_back(op);
    deepen(*chain, sum());
  }
}

ExprPtr Parser::sum() {
  ExprPtr e = concatenation();
  while (peek().is_op("+") || peek().is_op("-")) {
    const Token op = take();
    e = node(Expr::Kind::binary, op.line, op.text, std::move(e), concatenation());
  }
  return e;
}

ExprPtr Parser::concatenation() {
  ExprPtr e = product();
  while (peek().is_op("~")) {
    const int line = take().line;
    e = node(Expr::Kind::binary, line, "~", std::move(e), product());
  }
  return e;
}

ExprPtr Parser::product() {
  ExprPtr e = power();
  while (peek().is_op("*") || peek().is_op("/") || peek().is_op("//") || peek().is_op("%")) {
    const Token op = take();
    e = node(Expr::Kind::binary, op.line, op.text, std::move(e), power());
  }
  return e;
}

ExprPtr Parser::power() {
  ExprPtr e = unary();
  while (peek().is_op("**")) {
    const int line = take().line;
    e = node(Expr::Kind::binary, line, "**", std::move(e), unary());
  }
  return e;
}

ExprPtr Parser::unary(bool with_filters) {
  const Nesting nesting(*this);
  ExprPtr e;
  if (peek().is_op("-") || peek().is_op("+")) {
    const Token op = take();
    e = node(Expr::Kind::unary, op.line, op.text, unary(false));
  } else {
    e = primary();
  }
  e = postfixes(std::move(e));
  return with_filters ? filters_and_tests(std::move(e)) : std::move(e);
}

ExprPtr Parser::primary() {
  const int line = this->line();
  ExprPtr e = node(Expr::Kind::constant, line);
  const Token& t = peek();
  switch (t.kind) {
    case Token::Kind::name: {
      const std::string name = t.text;
      if (name == "true" || name == "True" || name == "false" || name == "False") {
        e->value = Value::boolean(name == "true" || name == "True");
        take();
      } else if (name == "none" || name == "None") {
        e->value = Value::none();
        take();
      } else {
        e = node(Expr::Kind::name, line, identifier("a value"));
      }
      return e;
    }
    case Token::Kind::text: {
      std::string text;
      while (peek().kind == Token::Kind::text) text += take().text;  // neighbours are one string
      e->value = Value::text(std::move(text));
      return e;
    }
    case Token::Kind::integer:
      e->value = Value::integer(take().integer);
      return e;
    case Token::Kind::number:
      e->value = Value::number(take().number);
      return e;
    default:
      break;
  }
  if (t.is_op("(")) return parenthesized();
  if (t.is_op("[")) return list_literal();
  if (t.is_op("{")) return dict_literal();
  fail_at(line, fmt::format("expected a value, not {}", describe(t)));
}

ExprPtr Parser::parenthesized() {
  const int line = take().line;
  if (take_op(")")) return node(Expr::Kind::tuple, line);
  ExprPtr e = tuple_or_expression(true);
  expect_op(")");
  return e;
}

ExprPtr Parser::list_literal() {
  ExprPtr e = node(Expr::Kind::list, take().line);
  while (!peek().is_op("]")) {
    if (!e->items.empty()) expect_op(",");
    if (peek().is_op("]")) break;
    deepen(*e, expression());
  }
  expect_op("]");
  return e;
}

ExprPtr Parser::dict_literal() {
  ExprPtr e = node(Expr::Kind::dict, take().line);
  while (!peek().is_op("}")) {
    if (!e->items.empty()) expect_op(",");
    if (peek().is_op("}")) break;
    deepen(*e, expression());
    expect_op(":");
    deepen(*e, expression());
  }
  expect_op("}");
  return e;
}

ExprPtr Parser::postfixes(ExprPtr e) {
  while (true) {
    if (peek().is_op(".")) {
      e = attribute(std::move(e));
    } else if (peek().is_op("[")) {
      e = subscript(std::move(e));
    } else if (peek().is_op("(")) {
      e = node(Expr::Kind::call, line(), "", std::move(e));
      arguments(*e);
    } else {
      return e;
    }
  }
}

ExprPtr Parser::attribute(ExprPtr e) {
  const int line = take().line;
  if (peek().kind == Token::Kind::integer) {  // list.0
    ExprPtr index = node(Expr::Kind::constant, line);
    index->value = Value::integer(take().integer);
    return node(Expr::Kind::subscript, line, "", std::move(e), std::move(index));
  }
  if (peek().kind != Token::Kind::name)
    fail_at(line, fmt::format("expected the name of an attribute, not {}", describe(peek())));
  return node(Expr::Kind::attribute, line, take().text, std::move(e));
}

ExprPtr Parser::subscript(ExprPtr e) {
  const int line = take().line;
  ExprPtr parts[3];
  int colons = 0;
  while (!peek().is_op("]")) {
    if (take_op(":")) {
      if (++colons > 2) fail_at(line, "a slice has at most two ':'");
    } else if (peek().is_op(",")) {
      fail_at(line, "several subscripts at once are not supported");
    } else {
      if (parts[colons]) fail_at(line, fmt::format("expected ':' or ']', not {}", describe(peek())));
      parts[colons] = expression();
    }
  }
  take();
  if (colons == 0) {
    if (!parts[0]) fail_at(line, "a subscript is empty");
    return node(Expr::Kind::subscript, line, "", std::move(e), std::move(parts[0]));
  }
  ExprPtr slice = node(Expr::Kind::slice, line, "", std::move(e));
  for (ExprPtr& part : parts) deepen(*slice, std::move(part));
  return slice;
}

// ( a, b, name = c )
void Parser::arguments(Expr& e) {
  expect_op("(");
  bool first = true;
  while (!peek().is_op(")")) {
    if (!std::exchange(first, false)) expect_op(",");
    if (peek().is_op(")")) break;
    if (peek().is_op("*") || peek().is_op("**")) fail_at(line(), "arguments with * and ** are not supported");
    if (peek().kind == Token::Kind::name && peek(1).is_op("=")) {
      std::string name = take().text;
      take();
      ExprPtr value = expression();
      e.depth = std::max(e.depth, value->depth + 1);
      if (e.depth > kMaxDepth) fail_at(e.line, fmt::format("an expression is more than {} operations deep", kMaxDepth));
      e.named.emplace_back(std::move(name), std::move(value));
    } else {
      if (!e.named.empty()) fail_at(line(), "an argument without a name follows one with a name");
      deepen(e, expression());
    }
  }
  expect_op(")");
}

ExprPtr Parser::filters_and_tests(ExprPtr e) {
  while (true) {
    if (peek().is_op("|")) {
      e = filters(std::move(e));
    } else if (peek().is_name("is")) {
      e = test(std::move(e));
    } else if (peek().is_op("(")) {
      e = node(Expr::Kind::call, line(), "", std::move(e));
      arguments(*e);
    } else {
      return e;
    }
  }
}

// | name | name(arguments) ...; e is null in {% set x | name %}
ExprPtr Parser::filters(ExprPtr e) {
  while (peek().is_op("|")) {
    const int line = take().line;
    ExprPtr filter = node(Expr::Kind::filter, line, identifier("the name of a filter"));
    deepen(*filter, std::move(e));
    if (peek().is_op("(")) arguments(*filter);
    e = std::move(filter);
  }
  return e;
}

ExprPtr Parser::test(ExprPtr e) {
  const int line = take().line;
  const bool negated = take_name("not");
  if (peek().kind != Token::Kind::name)
    fail_at(line, fmt::format("expected the name of a test, not {}", describe(peek())));
  ExprPtr test = node(Expr::Kind::test, line, take().text, std::move(e));
  const Token& t = peek();
  const bool operand = (t.kind == Token::Kind::name && !t.is_name("else") && !t.is_name("or") && !t.is_name("and")) ||
                       t.kind == Token::Kind::text || t.kind == Token::Kind::integer || t.kind == Token::Kind::number ||
                       t.is_op("[") || t.is_op("{");
  if (t.is_op("(")) {
    arguments(*test);
  } else if (operand && !t.is_name("if") && !t.is_name("in") && !t.is_name("not")) {  // `x is divisibleby 3`
    if (t.is_name("is")) fail_at(line, "tests cannot be chained with 'is'");
    deepen(*test, postfixes(primary()));
  }
  return negated ? node(Expr::Kind::unary, line, "not", std::move(test)) : std::move(test);
}

}  // namespace quire::jinja
