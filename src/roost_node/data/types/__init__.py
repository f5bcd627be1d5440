"""One module a type, each of the shape that roost_node.data.shape describes."""
