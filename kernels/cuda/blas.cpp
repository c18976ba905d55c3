#include "kernels/cuda/blas.h"

#include <cublas_v2.h>
#include <dlfcn.h>

#include "base/error.h"

namespace quire::cuda {

namespace {

using GemmEx = cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n, int k,
                              const void* alpha, const void* a, cudaDataType, int lda, const void* b, cudaDataType,
                              int ldb, const void* beta, void* c, cudaDataType, int ldc, cublasComputeType_t,
                              cublasGemmAlgo_t);

struct Library {
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  decltype(&cublasSetWorkspace_v2) set_workspace = nullptr;
  decltype(&cublasSetMathMode) set_math_mode = nullptr;
  GemmEx* gemm = nullptr;
  std::string why;  // there is none
};

template <class Fn>
bool find(void* library, const char* name, Fn& fn) {
  fn = reinterpret_cast<Fn>(dlsym(library, name));
  return fn != nullptr;
}

// Where the loader looks, then where the CUDA Toolkit puts it.
Library open_library() {
  Library l;
  const std::string version = ".so." + std::to_string(CUBLAS_VER_MAJOR);
  void* library = nullptr;
  for (const std::string folder : {"", QUIRE_CUDA_LIBRARY_DIR "/", "/usr/local/cuda/lib64/"}) {
    dlopen((folder + "libcublasLt" + version).c_str(), RTLD_NOW | RTLD_GLOBAL);  // what the next needs, from beside it
    library = dlopen((folder + "libcublas" + version).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library) break;
    if (const char* error = dlerror(); error && l.why.empty()) l.why = error;
  }
  if (!library) return l;
  l.why.clear();
  const bool all = find(library, "cublasCreate_v2", l.create) && find(library, "cublasDestroy_v2", l.destroy) &&
                   find(library, "cublasSetStream_v2", l.set_stream) &&
                   find(library, "cublasSetWorkspace_v2", l.set_workspace) &&
                   find(library, "cublasSetMathMode", l.set_math_mode) && find(library, "cublasGemmEx", l.gemm);
  if (!all) l.why = "libcublas" + version + " lacks a function";
  return l;
}
const Library& library() {
  static const Library l = open_library();
  return l;
}

void check_blas(cublasStatus_t status, const char* what) {
  check(status == CUBLAS_STATUS_SUCCESS, "cublas: {} failed with status {}", what, int(status));
}
cublasHandle_t handle_of(void* p) { return static_cast<cublasHandle_t>(p); }

}  // namespace

bool Blas::is_here() { return library().why.empty(); }

std::shared_ptr<const Blas> Blas::open(StreamHandle stream, std::string* why) {
  const Library& l = library();
  if (!l.why.empty()) {
    if (why) *why = l.why;
    return nullptr;
  }
  std::shared_ptr<Blas> blas(new Blas);
  cublasHandle_t handle = nullptr;
  check_blas(l.create(&handle), "making a handle");
  blas->handle_ = handle;
  blas->workspace_ = allocate(size_t(kWorkspaceBytes));
  check_blas(l.set_stream(handle, stream), "choosing a stream");
  check_blas(l.set_workspace(handle, blas->workspace_, size_t(kWorkspaceBytes)), "giving it a workspace");
  check_blas(l.set_math_mode(handle, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION), "choosing how it sums");
  return blas;
}

Blas::~Blas() {
  if (handle_) library().destroy(handle_of(handle_));
  if (workspace_) release(workspace_);
}

// Theirs are columns: w^T is their (N, K) matrix, x their (K, M), y their (N, M).
void Blas::halfs(bool bf16, const std::byte* x, const std::byte* w, float* y, const BlasShape& s, bool add) const {
  const float one = 1.0f, beta = add ? 1.0f : 0.0f;
  const cudaDataType type = bf16 ? CUDA_R_16BF : CUDA_R_16F;
  check_blas(library().gemm(handle_of(handle_), CUBLAS_OP_T, CUBLAS_OP_N, int(s.n), int(s.m), int(s.k), &one, w, type,
                            int(s.ldw), x, type, int(s.ldx), &beta, y, CUDA_R_32F, int(s.ldy), CUBLAS_COMPUTE_32F,
                            CUBLAS_GEMM_DEFAULT),
             "a product of halfs");
}

void Blas::bytes(const std::byte* x, const std::byte* w, int32_t* y, const BlasShape& s) const {
  const int32_t one = 1, zero = 0;
  check_blas(library().gemm(handle_of(handle_), CUBLAS_OP_T, CUBLAS_OP_N, int(s.n), int(s.m), int(s.k), &one, w,
                            CUDA_R_8I, int(s.ldw), x, CUDA_R_8I, int(s.ldx), &zero, y, CUDA_R_32I, int(s.ldy),
                            CUBLAS_COMPUTE_32I, CUBLAS_GEMM_DEFAULT),
             "a product of bytes");
}

}  // namespace quire::cuda
