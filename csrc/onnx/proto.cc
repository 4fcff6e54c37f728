#include "onnx/proto.h"

#include <climits>
#include <cstring>

namespace tiercel::onnx {
namespace {

template <class T> int64_t count(const std::vector<T>& v) { return static_cast<int64_t>(v.size()); }

void read_graph(Reader& r, GraphProto& g, Source& source);

void read_attribute(Reader& r, AttributeProto& a, Source& source) {
  int type = kAttrUndefined, seen = kAttrUndefined;
  int64_t i = 0;
  float f = 0;
  std::string_view s;
  Tensor t;
  AttributeProto::GraphPtr g;
  std::vector<float> floats;
  std::vector<int64_t> ints;
  std::vector<std::string_view> strings;
  std::vector<Tensor> tensors, sparse_tensors;
  std::vector<AttributeProto::GraphPtr> graphs;
  std::optional<Type> type_proto;
  std::vector<Type> type_protos;
  const auto graph = [&](Reader m) {
    auto p = std::make_shared<GraphProto>();
    read_graph(m, *p, source);
    return p;
  };
  while (r.next()) switch (r.field()) {
    case 1: a.name = r.bytes("name"); break;
    case 21: a.ref = r.bytes("ref_attr_name"); break;
    case 20: type = r.integer32("type"); break;
    case 2: f = r.fixed_float("f"); seen = kAttrFloat; break;
    case 3: i = r.integer("i"); seen = kAttrInt; break;
    case 4: s = r.bytes("s"); seen = kAttrString; break;
    case 5: { Reader m = r.message("t"); t = read_tensor(m, source).second; seen = kAttrTensor; break; }
    case 6: g = graph(r.message("g")); seen = kAttrGraph; break;
    case 7: r.each_fixed<float>("floats", [&](float v) { floats.push_back(v); }); seen = kAttrFloats; break;
    case 8: r.integers("ints", ints); seen = kAttrInts; break;
    case 9: strings.push_back(r.bytes("strings", count(strings))); seen = kAttrStrings; break;
    case 10: {
      Reader m = r.message("tensors", count(tensors));
      tensors.push_back(read_tensor(m, source).second);
      seen = kAttrTensors;
      break;
    }
    case 11: graphs.push_back(graph(r.message("graphs", count(graphs)))); seen = kAttrGraphs; break;
    case 22: { Reader m = r.message("sparse_tensor"); t = read_sparse_tensor(m, source).second; seen = kAttrTensor; break; }
    case 23: {
      Reader m = r.message("sparse_tensors", count(sparse_tensors));
      sparse_tensors.push_back(read_sparse_tensor(m, source).second);
      seen = kAttrSparses;
      break;
    }
    case 14: { Reader m = r.message("tp"); type_proto = read_type(m, source); seen = kAttrType; break; }
    case 15: { Reader m = r.message("type_protos", count(type_protos)); type_protos.push_back(read_type(m, source)); seen = kAttrTypes; break; }
    default: r.skip();
  }
  if (a.name.empty()) r.fail("an attribute without a name");
  if (!a.ref.empty()) return;
  switch (type == kAttrUndefined ? seen : type) {  // the earliest files have no type
    case kAttrFloat: a.value = f; break;
    case kAttrInt: a.value = i; break;
    case kAttrString: a.value = s; break;
    case kAttrTensor: case kAttrSparse:
      if (!t.defined()) r.fail("attribute '", a.name, "' says that it is a tensor, but there is none");
      a.value = std::move(t);
      break;
    case kAttrGraph:
      if (!g) r.fail("attribute '", a.name, "' says that it is a graph, but there is none");
      a.value = std::move(g);
      break;
    case kAttrFloats: a.value = std::move(floats); break;
    case kAttrInts: a.value = std::move(ints); break;
    case kAttrStrings: a.value = std::move(strings); break;
    case kAttrTensors: a.value = std::move(tensors); break;
    case kAttrSparses: a.value = std::move(sparse_tensors); break;
    case kAttrGraphs: a.value = std::move(graphs); break;
    case kAttrType: a.value = type_proto.value_or(Type{}); break;
    case kAttrTypes: a.value = std::move(type_protos); break;
    default: r.fail("attribute '", a.name, "' has the type ", type, ", which does not exist");
  }
}

void read_node(Reader& r, NodeProto& n, Source& source) {
  n.size = static_cast<int64_t>(r.remaining());
  while (r.next()) switch (r.field()) {
    case 1: n.inputs.push_back(r.bytes("input", count(n.inputs))); break;
    case 2: n.outputs.push_back(r.bytes("output", count(n.outputs))); break;
    case 3: n.name = r.bytes("name"); break;
    case 4: n.op_type = r.bytes("op_type"); break;
    case 5: { Reader m = r.message("attribute", count(n.attributes)); read_attribute(m, n.attributes.emplace_back(), source); break; }
    case 7: n.domain = domain_of(r.bytes("domain")); break;
    case 8: n.overload = r.bytes("overload"); break;
    default: r.skip();
  }
  if (n.op_type.empty()) r.fail("a node without an op_type");
}

void read_value_info(Reader& r, ValueInfoProto& v, Source& source) {
  while (r.next()) switch (r.field()) {
    case 1: v.name = r.bytes("name"); break;
    case 2: { Reader m = r.message("type"); v.type = read_type(m, source); v.has_type = true; break; }
    default: r.skip();
  }
}

void read_graph(Reader& r, GraphProto& g, Source& source) {
  const auto value_info = [&](const char* name, std::vector<ValueInfoProto>& to) {
    Reader m = r.message(name, count(to));
    read_value_info(m, to.emplace_back(), source);
    if (!to.back().name.empty()) return;
    if (&to != &g.value_info) m.fail("a graph ", name, " without a name");
    to.pop_back();
  };
  while (r.next()) switch (r.field()) {
    case 1: { Reader m = r.message("node", count(g.nodes)); read_node(m, g.nodes.emplace_back(), source); break; }
    case 2: g.name = r.bytes("name"); break;
    case 10: g.doc = r.bytes("doc_string"); break;
    case 5: { Reader m = r.message("initializer", count(g.initializers)); g.initializers.push_back(read_tensor(m, source)); break; }
    case 15: { Reader m = r.message("sparse_initializer"); g.initializers.push_back(read_sparse_tensor(m, source)); break; }
    case 11: value_info("input", g.inputs); break;
    case 12: value_info("output", g.outputs); break;
    case 13: value_info("value_info", g.value_info); break;
    default: r.skip();
  }
}

void read_opset(Reader& r, OpsetImports& opsets) {
  std::string_view domain;
  int64_t version = 0;
  while (r.next()) switch (r.field()) {
    case 1: domain = domain_of(r.bytes("domain")); break;
    case 2: version = r.integer("version"); break;
    default: r.skip();
  }
  if (version < 0 || version > INT_MAX) r.fail("opset version ", version, " of domain \"", domain, "\" is out of range");
  opsets[domain] = static_cast<int>(version);
}

void read_function(Reader& r, FunctionProto& f, Source& source) {
  while (r.next()) switch (r.field()) {
    case 1: f.name = r.bytes("name"); break;
    case 4: f.inputs.push_back(r.bytes("input", count(f.inputs))); break;
    case 5: f.outputs.push_back(r.bytes("output", count(f.outputs))); break;
    case 6: f.attributes.push_back(r.bytes("attribute", count(f.attributes))); break;
    case 11: { Reader m = r.message("attribute_proto", count(f.defaults)); read_attribute(m, f.defaults.emplace_back(), source); break; }
    case 7: { Reader m = r.message("node", count(f.nodes)); read_node(m, f.nodes.emplace_back(), source); break; }
    case 9: { Reader m = r.message("opset_import"); read_opset(m, f.opsets); break; }
    case 10: f.domain = domain_of(r.bytes("domain")); break;
    case 13: f.overload = r.bytes("overload"); break;
    default: r.skip();
  }
  if (f.name.empty()) r.fail("a function without a name");
}

}  // namespace

std::string NodeProto::label() const {
  std::string s = domain.empty() ? std::string(op_type) : cat(domain, ".", op_type);
  if (!name.empty()) return cat(s, " node \"", name, "\"");
  for (std::string_view o : outputs) if (!o.empty()) return cat(s, " node (output \"", o, "\")");
  return s + " node";
}

void read_model(Reader& r, ModelProto& m, Source& source) {
  while (r.next()) switch (r.field()) {
    case 1: m.ir_version = r.integer("ir_version"); m.has_ir_version = true; break;
    case 2: m.producer_name = r.bytes("producer_name"); break;
    case 3: m.producer_version = r.bytes("producer_version"); break;
    case 4: m.domain = r.bytes("domain"); break;
    case 5: m.model_version = r.integer("model_version"); break;
    case 6: m.doc = r.bytes("doc_string"); break;
    case 7: {
      Reader g = r.message("graph");
      if (!m.graph) m.graph.emplace();
      read_graph(g, *m.graph, source);
      break;
    }
    case 8: { Reader o = r.message("opset_import"); read_opset(o, m.opsets); break; }
    case 14: {
      Reader e = r.message("metadata_props", count(m.metadata));
      auto& [key, value] = m.metadata.emplace_back();
      while (e.next()) switch (e.field()) {
        case 1: key = e.bytes("key"); break;
        case 2: value = e.bytes("value"); break;
        default: e.skip();
      }
      break;
    }
    case 25: { Reader f = r.message("functions", count(m.functions)); read_function(f, m.functions.emplace_back(), source); break; }
    default: r.skip();
  }
}

}  // namespace tiercel::onnx
