#include "base/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire {
namespace {

TEST(Error, CheckFormatsItsMessageOnlyWhenItFails) {
  check(true, "never {}", 1);
  int evaluated = 0;
  try {
    check(false, "op: {} rows and {} columns; {} would work", 3, 4, (++evaluated, "4 x 4"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "op: 3 rows and 4 columns; 4 x 4 would work");
  }
  EXPECT_EQ(evaluated, 1);
}

TEST(Error, IsARuntimeErrorWithTheTextGiven) {
  EXPECT_THROW(fail("plain"), std::runtime_error);
  try {
    fail("braces {} stay");  // not a format
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "braces {} stay");
  }
}

}  // namespace
}  // namespace quire
