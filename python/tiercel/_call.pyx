# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, freethreading_compatible=False
"""The path of a call: feeds to slots, arrays made for the outputs, the engine run on both in place. Over the C ABI.

What is not a plain array of the right type (lists, strings, sequences, other byte orders) takes the slow path through
tiercel._core, which converts.
"""
cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError, PyDict_Values
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_Destructor, PyCapsule_GetPointer, PyCapsule_New, PyCapsule_SetName
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from tiercel cimport capi
from tiercel.capi cimport (
    TIERCEL_BUFFER, TIERCEL_NONE, TIERCEL_OPTIONAL, TIERCEL_TENSOR, TIERCEL_VALUE, int32_t, int64_t,
    tiercel_api, tiercel_arg, tiercel_control, tiercel_options, tiercel_session, tiercel_status, tiercel_type,
    tiercel_value,
)

from tiercel import _core
from tiercel import errors as _errors

cdef extern from "Python.h":
    # For a capsule that is being destroyed: `object` would count a reference to it.
    void* raw_pointer "PyCapsule_GetPointer"(PyObject*, const char*)

cnp.import_array()

cdef const tiercel_api* api = capi.import_tiercel()

cdef enum:
    MANY = 24        # arguments kept on the stack; more are allocated
    KEY = 192        # numbers of a shape signature that is remembered

# numpy's type number of each ONNX element type that it has and that the engine stores alike; -1: the slow path.
cdef int[27] typenum
for _i in range(27):
    typenum[_i] = -1
typenum[<int>capi.TIERCEL_FLOAT] = cnp.NPY_FLOAT32
typenum[<int>capi.TIERCEL_UINT8] = cnp.NPY_UINT8
typenum[<int>capi.TIERCEL_INT8] = cnp.NPY_INT8
typenum[<int>capi.TIERCEL_UINT16] = cnp.NPY_UINT16
typenum[<int>capi.TIERCEL_INT16] = cnp.NPY_INT16
typenum[<int>capi.TIERCEL_INT32] = cnp.NPY_INT32
typenum[<int>capi.TIERCEL_INT64] = cnp.NPY_INT64
typenum[<int>capi.TIERCEL_BOOL] = cnp.NPY_BOOL
typenum[<int>capi.TIERCEL_FLOAT16] = cnp.NPY_FLOAT16
typenum[<int>capi.TIERCEL_DOUBLE] = cnp.NPY_FLOAT64
typenum[<int>capi.TIERCEL_UINT32] = cnp.NPY_UINT32
typenum[<int>capi.TIERCEL_UINT64] = cnp.NPY_UINT64
typenum[<int>capi.TIERCEL_COMPLEX64] = cnp.NPY_COMPLEX64
typenum[<int>capi.TIERCEL_COMPLEX128] = cnp.NPY_COMPLEX128


cdef object error_of(tiercel_status status):
    return _errors.from_code(<int>status, (<bytes>api.last_error()).decode("utf-8", "replace"))


cdef void drop_reference(void* object) noexcept with gil:
    Py_DECREF(<object>object)


cdef void destroy_value(PyObject* capsule) noexcept:
    api.value_free(<tiercel_value*>raw_pointer(capsule, "tiercel.value"))


cdef object capsule_of(tiercel_value* value):
    """The value, freed with the capsule."""
    return PyCapsule_New(value, "tiercel.value", <PyCapsule_Destructor>destroy_value)


cdef class RunOptions:
    """Options of one run. Attributes as in onnxruntime: ``terminate`` (bool: stops the runs that were given this object, from
    any thread; they raise ``Fail``), ``logid`` and ``tag`` (str), ``log_severity_level``, ``log_verbosity_level`` (int),
    ``only_execute_path_to_fetches`` (bool; always the case here). The last five are kept and have no effect.
    """

    cdef tiercel_control* control
    cdef bint _terminate
    cdef dict _entries
    cdef public str logid
    cdef public str tag
    cdef public int log_severity_level
    cdef public int log_verbosity_level
    cdef public bint only_execute_path_to_fetches

    def __cinit__(self):
        cdef tiercel_status status = api.control_create(&self.control)
        if status != 0:
            raise error_of(status)
        self.logid = ""
        self.tag = ""
        self.log_severity_level = -1
        self._entries = {}

    def __dealloc__(self):
        api.control_free(self.control)

    @property
    def terminate(self):
        """bool. True makes the runs that were given this object fail, and those that will be."""
        return bool(self._terminate)

    @terminate.setter
    def terminate(self, bint value):
        self._terminate = value
        api.control_terminate(self.control, value)

    def add_run_config_entry(self, str key, str value):
        """Keeps a (key, value) entry. None has an effect yet; unknown ones are accepted."""
        self._entries[key] = value

    def get_run_config_entry(self, str key):
        """The value of an entry. Raises ``RuntimeError`` when there is none of that key, as onnxruntime does."""
        if key not in self._entries:
            raise RuntimeError(f"RunOptions does not have configuration with key: {key}")
        return self._entries[key]


cdef class Session:
    """A loaded model: what ``tiercel.InferenceSession`` calls. Inputs and outputs are known by slot."""

    cdef tiercel_session* handle
    cdef int n_in, n_out
    cdef readonly tuple _input_names
    cdef readonly tuple _output_names
    cdef readonly tuple _overridable_names
    cdef dict _variants        # names of initializers -> a Session that has them as inputs
    cdef dict _output_slots
    cdef int* in_typenum       # of inputs that are read in place; -1: always converted
    cdef int* in_dtype
    cdef int* in_kind
    cdef bint plain            # all inputs are tensors
    # The shapes of the last call and the output types they gave.
    cdef int key_size
    cdef int64_t[KEY] key
    cdef bytes types           # tiercel_type by slot; replaced as a whole, since other threads may be reading it

    def __dealloc__(self):
        self._unload()

    cdef void _unload(self) noexcept:
        cdef tiercel_session* handle = self.handle
        self.handle = NULL
        if handle != NULL:
            with nogil:
                api.session_free(handle)
        free(self.in_typenum)
        self.in_typenum = NULL

    def _load(self, model, str folder, list options):
        """Loads a path (str) or bytes, with (key, value) options of ``tiercel_options_set``. Not to be called twice."""
        cdef tiercel_options* o = NULL
        cdef tiercel_session* handle = NULL
        cdef tiercel_status status = api.options_create(&o)
        cdef bytes key, value, path, place
        cdef const char* p
        cdef const char* f
        cdef size_t size
        if status != 0:
            raise error_of(status)
        if self.handle != NULL:
            raise _errors.ModelLoaded("this session holds a model already")
        try:
            for k, v in options:
                key, value = k.encode(), v.encode()
                status = api.options_set(o, key, value)
                if status != 0:
                    raise error_of(status)
            if isinstance(model, bytes):
                p, size = PyBytes_AS_STRING(model), PyBytes_GET_SIZE(model)
                place = folder.encode("utf-8", "surrogateescape")
                f = place
                Py_INCREF(model)  # drop_reference gives it back
                with nogil:
                    status = api.session_load_memory(p, size, drop_reference, <void*>model, f, o, &handle)
                if status != 0:
                    Py_DECREF(model)
            else:
                path = model.encode("utf-8", "surrogateescape")
                if b"\0" in path:
                    raise _errors.NoSuchFile(f"the path {model!r} holds a zero character")
                p = path
                with nogil:
                    status = api.session_load(p, o, &handle)
            if status != 0:
                raise error_of(status)
            self.handle = handle
            self._learn()
        finally:
            api.options_free(o)

    def _adopt(self, capsule):
        """Takes over the session of a capsule "tiercel.session.new", instead of loading one."""
        if self.handle != NULL:
            raise _errors.ModelLoaded("this session holds a model already")
        self.handle = <tiercel_session*>PyCapsule_GetPointer(capsule, "tiercel.session.new")
        PyCapsule_SetName(capsule, "tiercel.session.taken")
        self._learn()

    cdef _learn(self):
        cdef tiercel_type t
        cdef int i
        cdef size_t n
        self.n_in = <int>api.session_num_inputs(self.handle)
        self.n_out = <int>api.session_num_outputs(self.handle)
        self.in_typenum = <int*>calloc(3 * self.n_in + 1, sizeof(int))
        if self.in_typenum == NULL:
            raise MemoryError()
        self.in_dtype = self.in_typenum + self.n_in
        self.in_kind = self.in_dtype + self.n_in
        self.plain = True
        names = []
        for i in range(self.n_in):
            names.append((<bytes>api.session_input_name(self.handle, i)).decode("utf-8", "replace"))
            api.session_input_type(self.handle, i, &t)
            self.in_dtype[i] = t.dtype
            self.in_kind[i] = t.kind
            self.in_typenum[i] = typenum[t.dtype] if t.kind == TIERCEL_TENSOR or t.kind == TIERCEL_OPTIONAL else -1
            self.plain = self.plain and t.kind == TIERCEL_TENSOR
        self._input_names = tuple(names)
        names = []
        for i in range(self.n_out):
            names.append((<bytes>api.session_output_name(self.handle, i)).decode("utf-8", "replace"))
        self._output_names = tuple(names)
        self._output_slots = {name: i for i, name in enumerate(names)}
        names = []
        for i in range(<int>api.session_num_overridable(self.handle)):
            names.append((<bytes>api.session_overridable_name(self.handle, i)).decode("utf-8", "replace"))
        self._overridable_names = tuple(names)
        self._variants = {}
        self.key_size = -1

    def _handle(self):
        """The session for functions of tiercel._core: a capsule that is good while this object lives."""
        return PyCapsule_New(self.handle, "tiercel.session", NULL)

    def _describe(self, int what):
        """(name, kind, dtype, shape) of each input (0), output (1) or overridable initializer (2); shape: extents, names of
        symbols, None; None: rank unknown."""
        cdef tiercel_type t
        cdef int i, axis
        cdef const char* symbol
        rows = []
        cdef tuple names = (self._input_names, self._output_names, self._overridable_names)[what]
        for i in range(len(names)):
            if what == 2:
                api.session_overridable_type(self.handle, i, &t)
            elif what == 1:
                api.session_output_type(self.handle, i, &t)
            else:
                api.session_input_type(self.handle, i, &t)
            shape = None
            if t.rank >= 0:
                shape = []
                for axis in range(t.rank):
                    if t.dims[axis] >= 0:
                        shape.append(t.dims[axis])
                        continue
                    if what == 2:
                        symbol = api.session_overridable_dim_name(self.handle, i, axis)
                    elif what == 1:
                        symbol = api.session_output_dim_name(self.handle, i, axis)
                    else:
                        symbol = api.session_input_dim_name(self.handle, i, axis)
                    shape.append(None if symbol == NULL else (<bytes>symbol).decode("utf-8", "replace"))
            rows.append((names[i], t.kind, t.dtype, shape))
        return rows

    # ---- running

    def run(self, output_names, input_feed, run_options=None):
        """Computes outputs of the model.

        output_names: names of the outputs to compute, in the order wanted; None or empty: all, in the model's order.
        input_feed: name -> value of every input; of initializers too that stand among the graph's inputs
        (``get_overridable_initializers``), in place of their own values for this run. A value is a numpy array (any byte order, contiguous or not, read-only or
        not; its dtype and shape must be the input's), a list or scalar (converted to the input's dtype), an ``OrtValue``, a list
        of arrays for a sequence, None for an optional left empty. run_options: a ``RunOptions``.

        Returns a list of numpy arrays (object arrays of str for strings; element types that numpy lacks as those of
        ml_dtypes, or as raw bits when it is not installed), lists of arrays for sequences, None for an empty optional.

        Raises ``ValueError`` when an input is missing; ``InvalidArgument``, which names the input, what was expected and
        what came, for a wrong name, dtype, rank or extent; ``RuntimeException`` or ``Fail`` when a node fails. The session
        stays usable. Any number of threads may call it at once; the interpreter's lock is released meanwhile.
        Source: ``onnxruntime.InferenceSession.run``.
        """
        return self._run(output_names, input_feed, run_options, None)

    def _run_into(self, output_names, input_feed, run_options, list given):
        """As run(), with an array to write in place (or None) for each of output_names."""
        return self._run(output_names, input_feed, run_options, given)

    cdef list _run(self, output_names, input_feed, run_options, list given):
        cdef tiercel_arg[MANY] few
        cdef tiercel_arg* args = few
        if self.handle == NULL:
            raise _errors.NoModel("this session holds no model")
        if self.n_in + self.n_out > MANY:
            args = <tiercel_arg*>malloc((self.n_in + self.n_out) * sizeof(tiercel_arg))
            if args == NULL:
                raise MemoryError()
            try:
                return self._run_with(args, args + self.n_in, output_names, input_feed, run_options, given)
            finally:
                free(args)
        return self._run_with(args, args + self.n_in, output_names, input_feed, run_options, given)

    cdef list _run_with(self, tiercel_arg* ins, tiercel_arg* outs, output_names, input_feed, run_options, list given):
        cdef int i, slot
        cdef dict feed
        cdef list held                # keeps arrays alive while other threads may change the dict
        cdef list wanted = None       # slots, in the order asked for; None: all
        cdef PyObject* found
        cdef object value
        cdef const tiercel_control* control = NULL
        cdef tiercel_status status
        cdef int matched = 0

        if run_options is not None:
            if not isinstance(run_options, RunOptions):
                raise TypeError(f"run_options must be a RunOptions, not {type(run_options).__name__}")
            control = (<RunOptions>run_options).control
        if type(input_feed) is dict:
            feed = <dict>input_feed
        elif hasattr(input_feed, "keys"):
            feed = dict(input_feed)
        else:
            raise TypeError(f"input_feed must map names to values, not be a {type(input_feed).__name__}")
        held = PyDict_Values(feed)

        for i in range(self.n_in):
            found = PyDict_GetItemWithError(feed, <object>self._input_names[i])
            ins[i].value = NULL
            if found == NULL:
                if self.in_kind[i] < TIERCEL_OPTIONAL:
                    self._complain(feed)
                ins[i].mode = TIERCEL_NONE
                continue
            matched += 1
            value = <object>found
            if not self._in_place(i, value, &ins[i]):
                self._convert(i, value, &ins[i], held)
        if matched != len(feed):
            return self._run_overriding(output_names, feed, run_options, given)

        if output_names is not None:
            if isinstance(output_names, str):
                raise TypeError("output_names must be a list of names, not a str")
            if not hasattr(output_names, "__len__"):
                output_names = list(output_names)
            if len(output_names):
                wanted = []
                for i in range(self.n_out):
                    outs[i].mode = TIERCEL_NONE
                for name in output_names:
                    found = PyDict_GetItemWithError(self._output_slots, name)
                    if found == NULL:
                        raise _errors.InvalidArgument(
                            f"invalid output name {name!r}: the outputs are {', '.join(self._output_names)}")
                    slot = <object>found
                    wanted.append(slot)
                    outs[slot].mode = TIERCEL_VALUE
        if wanted is None:
            for i in range(self.n_out):
                outs[i].mode = TIERCEL_VALUE

        # An array for each output whose shape is known, the engine's own value for the others.
        cdef bytes types = self._output_types(ins)
        cdef list results = [None] * self.n_out
        cdef tiercel_type* t
        cdef int axis
        for i in range(self.n_out):
            outs[i].value = NULL
            if types is None or outs[i].mode == TIERCEL_NONE:
                continue
            t = <tiercel_type*>PyBytes_AS_STRING(types) + i
            if t.kind != TIERCEL_TENSOR or t.rank < 0 or typenum[t.dtype] < 0:
                continue
            for axis in range(t.rank):
                if t.dims[axis] < 0:
                    break
            else:
                results[i] = cnp.PyArray_EMPTY(t.rank, <cnp.npy_intp*>t.dims, typenum[t.dtype], 0)
                fill(&outs[i], <cnp.ndarray>results[i], t.dtype)
        if given is not None:
            self._use_given(outs, wanted, given, results)

        with nogil:
            status = api.session_run(self.handle, ins, outs, control)
        if status != 0:
            raise error_of(status)
        cdef bint engine_made = False
        for i in range(self.n_out):
            if outs[i].mode == TIERCEL_VALUE:
                results[i] = capsule_of(outs[i].value)
                engine_made = True
        if engine_made:
            for i in range(self.n_out):
                if outs[i].mode == TIERCEL_VALUE:
                    results[i] = _core.from_value(results[i])
        if wanted is None:
            return results
        return [results[<int>slot] for slot in wanted]

    cdef inline bint _in_place(self, int i, object value, tiercel_arg* arg) noexcept:
        """Fills arg when value is an array that the engine can read where it stands."""
        if not cnp.PyArray_CheckExact(value):
            return False
        cdef cnp.ndarray a = <cnp.ndarray>value
        if cnp.PyArray_TYPE(a) != self.in_typenum[i] or not cnp.PyArray_ISCARRAY_RO(a):
            return False
        if cnp.PyArray_NDIM(a) > capi.TIERCEL_MAX_RANK:
            return False
        fill(arg, a, self.in_dtype[i])
        return True

    cdef _convert(self, int i, object value, tiercel_arg* arg, list held):
        """The slow path: fills arg from anything that means a value of input i; held keeps what it points to."""
        value = getattr(value, "_tiercel_data", value)  # OrtValue
        held.append(value)
        if self._in_place(i, value, arg):
            return
        capsule = _core.to_value(value, self.in_kind[i], self.in_dtype[i], self._input_names[i])
        held.append(capsule)
        arg.mode = TIERCEL_VALUE
        arg.value = <tiercel_value*>PyCapsule_GetPointer(capsule, "tiercel.value")

    cdef bytes _output_types(self, tiercel_arg* ins):
        """The output types for the shapes of the inputs (tiercel_type by slot); None when shapes alone do not decide."""
        cdef int64_t[KEY] key
        cdef int i, n = 0
        cdef tiercel_arg view
        cdef tiercel_status status
        cdef bytes found
        cdef tiercel_type* types
        if not self.plain:
            return None
        for i in range(self.n_in):
            view = ins[i]
            if view.mode == TIERCEL_VALUE and api.value_view(view.value, &view) != 0:
                return None
            if n + 1 + view.rank > KEY:
                n = -1
                break
            key[n] = view.rank
            memcpy(key + n + 1, view.dims, view.rank * sizeof(int64_t))
            n += 1 + view.rank
        if n >= 0 and n == self.key_size and memcmp(key, self.key, n * sizeof(int64_t)) == 0:
            return self.types
        found = PyBytes_FromStringAndSize(NULL, self.n_out * sizeof(tiercel_type))
        types = <tiercel_type*>PyBytes_AS_STRING(found)
        with nogil:
            status = api.session_output_types(self.handle, ins, types)
        if status != 0:
            raise error_of(status)
        self.types = found
        self.key_size = n
        if n > 0:
            memcpy(self.key, key, n * sizeof(int64_t))
        return found

    cdef _use_given(self, tiercel_arg* outs, list wanted, list given, list results):
        cdef int i, slot
        for i in range(len(given)):
            if given[i] is None:
                continue
            slot = wanted[i] if wanted is not None else i
            a = given[i]
            if not (cnp.PyArray_CheckExact(a) and cnp.PyArray_ISCARRAY(<cnp.ndarray>a)):
                raise _errors.InvalidArgument(
                    f"output {self._output_names[slot]!r}: expected a writable, contiguous, aligned array in native byte order")
            dtype = _core.dtype_number(a.dtype)
            if typenum[<int>dtype] < 0:
                raise _errors.InvalidArgument(
                    f"output {self._output_names[slot]!r}: arrays of {a.dtype} cannot be written in place")
            results[slot] = a
            fill(&outs[slot], <cnp.ndarray>a, dtype)

    cdef list _run_overriding(self, output_names, dict feed, run_options, list given):
        """A run whose feed names more than inputs: initializers that get other values, or are named without one."""
        cdef Session variant
        cdef tiercel_session* handle = NULL
        cdef tiercel_status status
        cdef const char** texts
        cdef size_t n, i
        rest = {name: value for name, value in feed.items() if value is not None or name not in self._overridable_names}
        others = [name for name in rest if name not in self._input_names]
        if not others:
            return self._run(output_names, rest, run_options, given)
        for name in others:
            if name not in self._overridable_names:
                self._complain(feed)
        names = tuple(sorted(others))
        variant = self._variants.pop(names, None)
        if variant is None:
            n = len(names)
            encoded = [name.encode() for name in names]
            texts = <const char**>malloc(n * sizeof(char*))
            if texts == NULL:
                raise MemoryError()
            for i in range(n):
                texts[i] = PyBytes_AS_STRING(encoded[i])
            with nogil:
                status = api.session_override(self.handle, texts, n, &handle)
            free(texts)
            if status != 0:
                raise error_of(status)
            variant = Session.__new__(Session)
            variant.handle = handle
            variant._learn()
        self._variants[names] = variant  # the last
        while len(self._variants) > 4:  # each has weights of its own
            self._variants.pop(next(iter(self._variants)), None)
        return variant._run(output_names, rest, run_options, given)

    cdef _complain(self, dict feed):
        """Raises for inputs that are missing or names that are none of the inputs'."""
        missing = [name for i, name in enumerate(self._input_names)
                   if name not in feed and self.in_kind[i] < TIERCEL_OPTIONAL]
        unknown = [name for name in feed if name not in self._input_names and name not in self._overridable_names]
        if missing:
            raise ValueError(f"Required inputs ({missing}) are missing from input feed ({list(feed)}).")
        raise _errors.InvalidArgument(
            f"invalid input name {', '.join(map(repr, unknown))}: the inputs are {', '.join(self._input_names)}"
            + (f"; initializers that may be given: {', '.join(self._overridable_names)}" if self._overridable_names else ""))


cdef inline void fill(tiercel_arg* arg, cnp.ndarray a, int dtype) noexcept:
    arg.mode = TIERCEL_BUFFER
    arg.dtype = dtype
    arg.rank = cnp.PyArray_NDIM(a)
    arg.dims = <const int64_t*>cnp.PyArray_DIMS(a)
    arg.data = cnp.PyArray_DATA(a)
    arg.value = NULL
