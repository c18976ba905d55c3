// Errors. Every failure a caller can meet is a quire::Error whose text names the operation, the values that were wrong
// and what would work. The library never prints and never exits.
#pragma once
#include <stdexcept>
#include <string>
#ifndef __CUDACC__  // fmt's consteval format strings do not compile under nvcc at C++20
#include <fmt/core.h>
#endif

namespace quire {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

[[noreturn]] void fail(const std::string& message);  // throws Error

#ifdef __CUDACC__
// Without the values: shapes are checked in the .cpp beside, where fmt is.
template <class... Args>
void check(bool ok, const char* message, Args&&...) {
  if (!ok) fail(message);
}
#else
template <class... Args>
void check(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) [[unlikely]]
    fail(fmt::format(format, std::forward<Args>(args)...));
}
#endif

}  // namespace quire
