# QUIRE_CUDA: ON demands a CUDA compiler, AUTO takes one if it and a GPU are there, OFF never looks.
# QUIRE_CUDA_ARCHITECTURES: what to compile for. The default runs on every NVIDIA GPU from Ampere on: machine code for
# 8.0 (runs on 8.x) and 9.0a (wgmma exists only there), PTX for what comes later. CI takes one: CUDAARCHS=90a-real.
set(QUIRE_WITH_CUDA OFF)
set(QUIRE_GPU_IS_HERE OFF)
foreach(trace /dev/nvidiactl /proc/driver/nvidia/version /dev/dxg)  # the last: under Windows
  if(EXISTS ${trace})
    set(QUIRE_GPU_IS_HERE ON)
  endif()
endforeach()
if(QUIRE_CUDA STREQUAL "ON" OR (QUIRE_CUDA STREQUAL "AUTO" AND QUIRE_GPU_IS_HERE))
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(QUIRE_WITH_CUDA ON)
  elseif(QUIRE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "QUIRE_CUDA=ON, but no CUDA compiler was found: install the CUDA Toolkit and put nvcc on PATH, or use QUIRE_CUDA=OFF")
  endif()
endif()

set(QUIRE_CUDA_TEXT "not built in")  # what --version says
if(QUIRE_WITH_CUDA)
  set(default_architectures "80-real;90a-real;80-virtual")
  if(DEFINED ENV{CUDAARCHS})
    set(default_architectures "$ENV{CUDAARCHS}")
  endif()
  set(QUIRE_CUDA_ARCHITECTURES "${default_architectures}" CACHE STRING "GPU architectures, as CMAKE_CUDA_ARCHITECTURES spells them")
  set(CMAKE_CUDA_ARCHITECTURES ${QUIRE_CUDA_ARCHITECTURES})
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # finds the driver when it is first used, so the program starts without one
  if(QUIRE_CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${QUIRE_CCACHE})
  endif()
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 20)
  if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know nvcc's flag
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  find_package(CUDAToolkit REQUIRED)
  # fmad off as -ffp-contract=off on the host: the written order of f32 operations is what runs.
  # 20012: constexpr functions with QUIRE_HD; 177: unused functions of headers.
  add_compile_options($<$<COMPILE_LANGUAGE:CUDA>:--fmad=false>)
  add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:--compiler-options=-Wall,-Wextra,-Wno-psabi,-ffp-contract=off>")
  # A bundle (tools/bundle.sh) has the libraries in ../lib; the old kind of RPATH also serves what those need themselves.
  set(CMAKE_BUILD_RPATH "$ORIGIN/../lib")
  add_link_options(-Wl,--disable-new-dtags)
  list(JOIN QUIRE_CUDA_ARCHITECTURES " " QUIRE_CUDA_TEXT)
  set(QUIRE_CUDA_TEXT "architectures ${QUIRE_CUDA_TEXT}")
endif()
