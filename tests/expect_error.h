// That something fails with a quire::Error, and that the error says what it must.
#pragma once
#include <gtest/gtest.h>

#include <concepts>
#include <initializer_list>
#include <string>

#include "base/error.h"

namespace quire {

// What it says; empty if there was none.
template <std::invocable Fn>
std::string error_of(Fn&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

template <class Fn>
void expect_error(Fn&& fn, std::initializer_list<std::string> parts) {
  try {
    fn();
  } catch (const Error& e) {
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << "'" << part << "' is not in: " << e.what();
    }
    return;
  }
  ADD_FAILURE() << "no error, where one should say '" << (parts.size() > 0 ? *parts.begin() : "") << "'";
}

}  // namespace quire
