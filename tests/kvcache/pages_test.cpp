// Page ids: held, free, kept for reuse, shared by prefix.
#include "kvcache/pages.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/expect_error.h"
#include "tests/op_test.h"

namespace quire {
namespace {

using Tokens = std::vector<int32_t>;

TEST(Pages, AllocatesEachOnceUntilNoneIsLeft) {
  Pages pages(3);
  EXPECT_EQ(pages.count(), 3);
  EXPECT_EQ(pages.available(), 3);
  const std::set<int32_t> got = {pages.allocate(), pages.allocate(), pages.allocate()};
  EXPECT_EQ(got, (std::set<int32_t>{0, 1, 2}));
  EXPECT_EQ(pages.available(), 0);
  EXPECT_EQ(pages.allocate(), -1);
  pages.release(1);
  EXPECT_EQ(pages.available(), 1);
  EXPECT_EQ(pages.kept(), 0);  // never published
  EXPECT_EQ(pages.allocate(), 1);
}

TEST(Pages, CountsReferences) {
  Pages pages(1);
  const int32_t page = pages.allocate();
  pages.retain(page);
  EXPECT_EQ(pages.references(page), 2);
  pages.release(page);
  EXPECT_EQ(pages.available(), 0);
  pages.release(page);
  EXPECT_EQ(pages.available(), 1);
  expect_error([&] { pages.release(page); }, {"page 0", "more often"});
}

TEST(Pages, FindsWhatWasPublished) {
  Pages pages(4);
  const Tokens a = {1, 2, 3}, b = {4, 5};
  const int32_t first = pages.allocate(), second = pages.allocate();
  EXPECT_EQ(pages.find(Pages::kRoot, a), -1);
  pages.publish(first, Pages::kRoot, a);
  pages.publish(second, Pages::key(Pages::kRoot, a), b);
  EXPECT_EQ(pages.find(Pages::kRoot, a), first);
  EXPECT_EQ(pages.references(first), 2);
  EXPECT_EQ(pages.find(Pages::kRoot, b), -1);  // the same tokens after another beginning are other keys and values
  EXPECT_EQ(pages.find(Pages::key(Pages::kRoot, a), b), second);
  EXPECT_EQ(pages.find(Pages::kRoot, Tokens{1, 2}), -1);
  EXPECT_EQ(pages.find(Pages::kRoot, Tokens{1, 3, 2}), -1);
  EXPECT_EQ(pages.find(Pages::kRoot + 1, a), -1);
}

TEST(Pages, FirstWriterWins) {
  Pages pages(2);
  const Tokens a = {7, 8};
  const int32_t first = pages.allocate(), second = pages.allocate();
  pages.publish(first, Pages::kRoot, a);
  pages.publish(second, Pages::kRoot, a);
  EXPECT_EQ(pages.find(Pages::kRoot, a), first);
  pages.release(second);  // the copy is not kept
  EXPECT_EQ(pages.kept(), 0);
  EXPECT_EQ(pages.available(), 1);
}

TEST(Pages, KeepsPublishedOnesAndReusesTheLeastRecentlyUsedLast) {
  Pages pages(4);
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 3; ++i) {
    ids.push_back(pages.allocate());
    pages.publish(ids.back(), Pages::kRoot, Tokens{i});
  }
  for (const int32_t id : {ids[1], ids[0], ids[2]}) pages.release(id);
  EXPECT_EQ(pages.kept(), 3);
  EXPECT_EQ(pages.available(), 4);
  EXPECT_EQ(pages.find(Pages::kRoot, Tokens{1}), ids[1]);  // used again: now the most recent
  EXPECT_EQ(pages.kept(), 2);
  pages.release(ids[1]);
  EXPECT_EQ(pages.allocate(), 3);  // a free page first
  EXPECT_EQ(pages.allocate(), ids[0]);
  EXPECT_EQ(pages.find(Pages::kRoot, Tokens{0}), -1) << "its contents are gone";
  EXPECT_EQ(pages.allocate(), ids[2]);
  EXPECT_EQ(pages.allocate(), ids[1]);
  EXPECT_EQ(pages.allocate(), -1);
}

TEST(Pages, KeysDependOnEveryTokenAndTheirOrder) {
  std::set<uint64_t> keys;
  Rng rng(1);
  Tokens tokens(64);
  for (int32_t& t : tokens) t = int32_t(rng() % 50000);
  keys.insert(Pages::key(Pages::kRoot, tokens));
  for (size_t i = 0; i < tokens.size(); ++i) {
    Tokens changed = tokens;
    changed[i] += 1;
    keys.insert(Pages::key(Pages::kRoot, changed));
    if (i > 0) {
      std::swap(tokens[i], tokens[i - 1]);
      keys.insert(Pages::key(Pages::kRoot, tokens));
      std::swap(tokens[i], tokens[i - 1]);
    }
  }
  EXPECT_EQ(keys.size(), 1u + 64u + 63u);
}

// Random use against a plain account of who holds what.
TEST(Pages, RandomUse) {
  Rng rng(2);
  Pages pages(20);
  std::multiset<int32_t> held;
  std::map<int32_t, Tokens> published;  // what a page was published as, until it is handed out again
  for (int step = 0; step < 20000; ++step) {
    switch (rng() % 5) {
      case 0:
      case 1: {
        const int32_t page = pages.allocate();
        ASSERT_EQ(page < 0, std::set<int32_t>(held.begin(), held.end()).size() == 20);
        if (page < 0) break;
        ASSERT_EQ(held.count(page), 0u);
        held.insert(page);
        published.erase(page);
        break;
      }
      case 2: {
        const Tokens tokens = {int32_t(rng() % 12)};
        const int32_t page = pages.find(Pages::kRoot, tokens);
        bool known = false;
        for (const auto& [id, t] : published) known |= t == tokens;
        ASSERT_EQ(page >= 0, known);
        if (page < 0) break;
        ASSERT_EQ(published.at(page), tokens);
        held.insert(page);
        break;
      }
      default: {
        if (held.empty()) break;
        const int32_t page = *std::next(held.begin(), long(rng() % held.size()));
        if (rng() % 3 == 0) {
          const Tokens tokens = {int32_t(rng() % 12)};
          pages.publish(page, Pages::kRoot, tokens);
          bool known = published.count(page) > 0;
          for (const auto& [id, t] : published) known |= t == tokens;
          if (!known) published[page] = tokens;
          break;
        }
        pages.release(page);
        held.erase(held.find(page));
      }
    }
    const std::set<int32_t> distinct(held.begin(), held.end());
    ASSERT_EQ(pages.available(), 20 - int64_t(distinct.size()));
    for (const int32_t page : distinct) ASSERT_EQ(pages.references(page), int64_t(held.count(page)));
    int64_t kept = 0;
    for (const auto& [page, tokens] : published) kept += held.count(page) == 0;
    ASSERT_EQ(pages.kept(), kept);
  }
}

}  // namespace
}  // namespace quire
