# The one table: ISA -> compiler flags. Files named *.isa.cc are compiled once for each row that the target has.
#
# tiercel_isa_rows: rows for this target, weakest first. tiercel_isa_flags_<row>: flags of a row.
# A row's name is also the namespace of its code (TIERCEL_ISA) and the value of TIERCEL_FORCE_ISA.

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set(tiercel_isa_rows baseline avx2 avx512)
  set(tiercel_isa_flags_baseline -march=x86-64-v2)
  set(tiercel_isa_flags_avx2 -march=x86-64-v3)
  # x86-64-v4 with the dot-product extensions; 512-bit registers on purpose: the kernels are written for them.
  set(tiercel_isa_flags_avx512 -march=x86-64-v4 -mavx512vnni -mavx512bf16 -mprefer-vector-width=512)
  set(tiercel_base_flags -march=x86-64-v2)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
  set(tiercel_isa_rows baseline neon)
  set(tiercel_isa_flags_baseline "")
  set(tiercel_isa_flags_neon -march=armv8-a+simd)
  set(tiercel_base_flags "")
else()
  set(tiercel_isa_rows baseline)
  set(tiercel_isa_flags_baseline "")
  set(tiercel_base_flags "")
endif()

# tiercel_add_kernels(OUT objects): one object library a row out of every csrc/**/*.isa.cc.
function(tiercel_add_kernels out)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/kernels/*.isa.cc)
  set(objects "")
  foreach(row IN LISTS tiercel_isa_rows)
    string(TOUPPER ${row} ROW)
    add_library(tiercel_kernels_${row} OBJECT ${sources})
    target_link_libraries(tiercel_kernels_${row} PRIVATE tiercel_flags)
    if(TIERCEL_SANITIZE)  # unrolled loops that are checked load by load take minutes each to optimise
      target_compile_options(tiercel_kernels_${row} PRIVATE -O1 ${tiercel_isa_flags_${row}})
    else()
      target_compile_options(tiercel_kernels_${row} PRIVATE -O3 ${tiercel_isa_flags_${row}})
    endif()
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # GCC 12's own AVX-512 headers trip these
      target_compile_options(tiercel_kernels_${row} PRIVATE -Wno-uninitialized -Wno-maybe-uninitialized)
    endif()
    target_compile_definitions(tiercel_kernels_${row} PRIVATE TIERCEL_ISA=${row} TIERCEL_ISA_${ROW}=1)
    list(APPEND objects $<TARGET_OBJECTS:tiercel_kernels_${row}>)
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()
