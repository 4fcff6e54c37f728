// The one intermediate representation: import, passes, autodiff and execution share it.
//
// A Graph owns its nodes (kept in topological order) and values. A value is a graph input, a constant, or an output of one
// node. Bodies of If, Loop and Scan are Graphs held in the node's attributes; an outer value that a body uses is an explicit
// input: it stands in the node's `inputs` after the operator's own, and at the end of the body's `inputs` (see Node::captures).
#pragma once
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/fork.h"
#include "graph/constant_memo.h"
#include "graph/type.h"

namespace tiercel {

class Graph;
struct Node;

struct Use {
  Node* node;
  int index;  // position in node->inputs
};

struct Value {
  std::string name;          // unique in its graph; may be empty for values that passes make
  Type type;
  Tensor constant;           // defined() for initializers and folded values
  Node* producer = nullptr;  // null for graph inputs and constants
  int output_index = 0;
  int id = -1;               // dense index in the graph, stable while the value lives
  bool is_graph_input = false;
  bool computed = false;     // a constant that was the result of a node (Constant, or folded), no initializer of the file
  int graph_output_uses = 0; // how often it stands in graph.outputs
  std::vector<Use> uses;

  bool is_constant() const { return constant.defined(); }
  bool has_one_use() const { return uses.size() == 1 && graph_output_uses == 0; }
};

// monostate marks an attribute that refers to a function's parameter and was not given.
using Attribute = std::variant<std::monostate, int64_t, float, std::string, Tensor, std::shared_ptr<Graph>,
                               std::vector<int64_t>, std::vector<float>, std::vector<std::string>, std::vector<Tensor>,
                               std::vector<std::shared_ptr<Graph>>, Type, std::vector<Type>>;

struct Node {
  std::string op_type, domain, name;  // domain "" is ai.onnx
  int opset = 0;                      // the opset version of `domain` that the node is written in
  std::vector<Value*> inputs;         // null: an optional input left out
  std::vector<Value*> outputs;        // null: an optional output left out
  std::vector<std::pair<std::string, Attribute>> attributes;
  Graph* graph = nullptr;
  std::list<std::unique_ptr<Node>>::iterator self;

  // Number of leading inputs that are the operator's own; the rest are captures of its bodies, in the order of subgraphs().
  int own_inputs = -1;  // -1: all
  int num_own_inputs() const { return own_inputs < 0 ? static_cast<int>(inputs.size()) : own_inputs; }
  // Bodies, in the order of `attributes`.
  std::vector<std::pair<std::string, Graph*>> subgraphs() const;
  // First input index of the captures of the body in attribute `attr`; they are body.captured many.
  int captures_begin(const Graph* body) const;

  const Attribute* attribute(std::string_view key) const;
  bool has(std::string_view key) const { return attribute(key) != nullptr; }
  // Value of an attribute, or the default when absent. A wrong type is an Error(kInvalidGraph) that names node and attribute.
  int64_t attr_int(std::string_view key, int64_t otherwise) const;
  float attr_float(std::string_view key, float otherwise) const;
  std::string attr_string(std::string_view key, std::string_view otherwise) const;
  std::vector<int64_t> attr_ints(std::string_view key, std::vector<int64_t> otherwise = {}) const;
  const std::vector<int64_t>* find_ints(std::string_view key) const;  // null when absent; so for attr_tensor and attr_graph
  std::vector<float> attr_floats(std::string_view key, std::vector<float> otherwise = {}) const;
  std::vector<std::string> attr_strings(std::string_view key) const;
  const Tensor* attr_tensor(std::string_view key) const;  // null when absent
  Graph* attr_graph(std::string_view key) const;          // null when absent
  void set(std::string_view key, Attribute value);
  void unset(std::string_view key);

  Value* input(int i) const { return i < static_cast<int>(inputs.size()) ? inputs[i] : nullptr; }
  Value* output(int i = 0) const { return i < static_cast<int>(outputs.size()) ? outputs[i] : nullptr; }
  std::string label() const;  // Conv node "/layer1/conv1": how errors name it
  bool is(std::string_view op, std::string_view in_domain = "") const { return op_type == op && domain == in_domain; }
};

using NodeList = std::list<std::unique_ptr<Node>>;

// Symbolic extents: their names, shared by a graph and its bodies. Any number of threads may use one at once: runs build Programs.
class SymbolTable {
 public:
  SymbolTable() = default;
  // A table of its own over `outer`, which it only reads: what a Program's inference needs goes when the Program has been built.
  // Nothing may be added to `outer` meanwhile.
  explicit SymbolTable(const SymbolTable& outer);
  // Do both give the same symbols the same meaning (those that the narrower one knows)?
  bool extends(const SymbolTable& other) const { return this == &other || (outer_ && outer_->extends(other)); }
  Dim named(const std::string& name);                 // the same name, the same symbol
  Dim fresh();                                        // equal to nothing else
  Dim plus(Dim a, Dim b);                             // of numbers or symbols: the same sum, the same symbol; (t + 3) + -3 is t
  const std::string& name(Dim d) const;               // "" for a fresh one
  std::string str(Dim d) const;                       // "3", "batch" or "?"
  // Symbols also stand for integers that inference cannot compute; those that are the extent of some axis are not negative.
  void note_extent(Dim d);
  bool is_extent(Dim d) const;
  int size() const;                                   // symbols so far, those of the tables below included

 private:
  using Sum = std::pair<std::vector<Dim>, int64_t>;   // of symbols that are no sums, in order, and a number
  Dim add(std::string name);
  const std::string& name_of(Dim d) const;            // these four: under the lock, and in the tables below
  Dim find_name(const std::string& name) const;       // 0: none
  Dim find_sum(const Sum& sum) const;                 // 0: none
  const Sum* find_terms(Dim d) const;

  mutable ForkSafeMutex mutex_;
  const SymbolTable* outer_ = nullptr;
  size_t first_ = 0;                                  // symbols of the tables below: this one's ids follow
  std::vector<std::unique_ptr<const std::string>> names_;  // null: none
  std::vector<bool> extents_;
  std::unordered_map<std::string, Dim> by_name_;
  std::map<Sum, Dim> sums_;
  std::unordered_map<Dim, Sum> terms_;
};

class Graph {
 public:
  explicit Graph(std::shared_ptr<SymbolTable> symbols = nullptr);
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  // A deep copy; constants share their memory.
  std::shared_ptr<Graph> clone() const;

  std::string name, doc;
  int captured = 0;              // how many of the last inputs are captures of outer values
  std::shared_ptr<ConstantMemo> memo;  // of a graph whose weights change, else null
  std::map<std::string, int> opsets;  // domain -> version, of the model
  const std::vector<Value*>& inputs() const { return inputs_; }
  const std::vector<Value*>& outputs() const { return outputs_; }
  NodeList& nodes() { return nodes_; }
  const NodeList& nodes() const { return nodes_; }
  SymbolTable& symbols() const { return *symbols_; }
  const std::shared_ptr<SymbolTable>& symbol_table() const { return symbols_; }
  void set_symbols(const std::shared_ptr<SymbolTable>& symbols);  // of this graph and its bodies; it extends the old ones
  int num_values() const { return static_cast<int>(values_.size()); }  // ids are below this
  Value* value(int id) const { return values_[id].get(); }              // null for an erased one

  Value* add_value(std::string name, Type type = {});
  Value* add_input(std::string name, Type type);
  Value* add_constant(std::string name, Tensor tensor);
  Value* new_constant(Tensor tensor, std::string_view what = "constant");  // under a name of its own
  void remove_input(int index);   // it must have no uses
  void order_inputs(std::vector<Value*> inputs);  // the same ones in another order
  void add_output(Value* v);
  void set_output(int index, Value* v);
  void clear_outputs();

  // A node before `before` (at the end when null). Outputs are values without a producer, or null.
  Node* add_node(std::string op_type, std::string domain, int opset, std::vector<Value*> inputs,
                 std::vector<Value*> outputs, Node* before = nullptr);
  // The same as `n`, of any graph, on other values: name, attributes and clones of its bodies.
  Node* add_copy(const Node& n, std::vector<Value*> inputs, std::vector<Value*> outputs, Node* before = nullptr);
  // The common case of passes: a node with one new output of the given type, before `before`.
  Value* emit(std::string op_type, std::string domain, int opset, std::vector<Value*> inputs, Type type, Node* before);

  void set_input(Node* node, int index, Value* v);  // v may be null
  void add_node_input(Node* node, Value* v);        // appends an own input (not after captures)
  void resize_inputs(Node* node, int n);
  void insert_input(Node* node, int index, Value* v);   // own or capture: `own_inputs` is the caller's business
  void insert_output(Node* node, int index, Value* v);  // v has no producer yet; or is null
  // Appends copies of `from`'s nodes and constants with `inputs` for its inputs. Returns what its outputs are then.
  std::vector<Value*> append(const Graph& from, std::span<Value* const> inputs);
  // What `make` computes of the constants `from` (null: left out) and of what the key says; as it was made before where there is a memo.
  Tensor derived(const std::string& key, std::initializer_list<const Value*> from, const std::function<Tensor()>& make) const;
  // In nodes and in outputs. Where `from` is a graph output, `to` takes over its name (so it should be a node's output).
  void replace_uses(Value* from, Value* to);
  // Turns a node's output into a constant: it keeps its name and uses and loses its producer.
  void make_constant(Value* v, Tensor tensor);
  void erase(Node* node);   // its outputs must be unused; they go with it
  void renumber();          // ids without gaps: what is held by id takes less
  void erase_dead();        // nodes whose outputs nobody uses, then unused constants (bodies too)
  // Consistency of uses, producers, order and names: an Error(kInvalidGraph) on the first thing wrong. For tests and dumps.
  void check() const;

 private:
  void add_use(Value* v, Node* n, int index);
  void drop_use(Value* v, Node* n, int index);

  std::shared_ptr<SymbolTable> symbols_;
  NodeList nodes_;
  std::vector<std::unique_ptr<Value>> values_;
  std::vector<Value*> inputs_, outputs_;
};

// What a file holds beside its graph.
struct Model {
  std::shared_ptr<Graph> graph;
  int ir_version = 0;
  int64_t model_version = 0;
  std::string producer_name, producer_version, domain, doc, path;
  std::vector<std::pair<std::string, std::string>> metadata;  // metadata_props
  // Initializers that stand among the graph's inputs too, from IR version 4 on: a run may give other values. As constants in `graph`.
  std::vector<std::pair<std::string, Type>> overridable;
  // The same model read again, some of those as inputs; null where there are none. Keeps the file's bytes. One call at a time.
  std::function<Model(const std::vector<std::string>& as_inputs)> again;
};

}  // namespace tiercel
