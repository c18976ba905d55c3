#include <cstdio>

int main() {
  std::puts("quire");
  return 0;
}
