// A parsed template.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/jinja/value.h"

namespace quire::jinja {

struct Expr {
  enum class Kind : uint8_t {
    constant,   // value
    name,       // text
    list,       // items
    tuple,      // items
    dict,       // items: key, value, key, value ...
    unary,      // text: "-", "+", "not"; items[0]
    binary,     // text: + - * / // % ** ~ and or; items[0], items[1]
    compare,    // operators; items: one more
    ternary,    // items: condition, then, else (may be null)
    attribute,  // items[0] . text
    subscript,  // items[0] [ items[1] ]
    slice,      // items[0] [ items[1] : items[2] : items[3] ], the last three may be null
    call,       // items[0] ( items[1...], named )
    filter,     // items[0] | text ( items[1...], named ); items[0] may be null in a filter of a block
    test,       // items[0] is text ( items[1...], named )
  };
  Kind kind;
  int line;
  int depth = 1;
  std::string text = {};
  Value value = {};
  std::vector<std::unique_ptr<Expr>> items = {};
  std::vector<std::pair<std::string, std::unique_ptr<Expr>>> named = {};
  std::vector<std::string> operators = {};
};
using ExprPtr = std::unique_ptr<Expr>;

struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

struct Parameter {
  std::string name;
  ExprPtr fallback;  // null: undefined
};

struct Macro {
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
};

struct Stmt {
  enum class Kind : uint8_t {
    data,        // text
    print,       // expr
    branch,      // branches; otherwise
    loop,        // targets; expr: what is iterated; condition (may be null); body; otherwise
    set,         // targets or (targets[0] . attribute); expr
    set_block,   // the same; body; expr: chain of filters on it (may be null)
    macro,       // macro
    call_block,  // expr: the call; macro: the caller
    scope,       // body, in a scope of its own ({% generation %})
    leave,       // break
    next,        // continue
  };
  Kind kind;
  int line;
  std::string text = {};
  ExprPtr expr = {}, condition = {};
  std::vector<std::string> targets = {};
  std::string attribute = {};
  std::vector<std::pair<ExprPtr, Body>> branches = {};
  Body body = {}, otherwise = {};
  std::shared_ptr<const Macro> macro = {};
};

}  // namespace quire::jinja
