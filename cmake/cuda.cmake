# QUIRE_CUDA: ON demands a CUDA compiler, AUTO takes one if it is there, OFF never looks.
set(QUIRE_WITH_CUDA OFF)
if(NOT QUIRE_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(QUIRE_WITH_CUDA ON)
  elseif(QUIRE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "QUIRE_CUDA=ON, but no CUDA compiler was found: install the CUDA Toolkit and put nvcc on PATH, or use QUIRE_CUDA=OFF")
  endif()
endif()

# What --version says.
set(QUIRE_CUDA_TEXT "not built in")
if(QUIRE_WITH_CUDA AND CMAKE_CUDA_ARCHITECTURES)
  list(JOIN CMAKE_CUDA_ARCHITECTURES " " QUIRE_CUDA_TEXT)
  set(QUIRE_CUDA_TEXT "architectures ${QUIRE_CUDA_TEXT}")
endif()
