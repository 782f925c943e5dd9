"""``monitor train``: fits the classifier's network to labelled logs and writes a model directory.

The training sets are made by the pipeline's own decode, sketch, ticks and features (:mod:`.dataset`); the network is
PyTorch's (:mod:`.network`, the extra ``train``), its export plain ONNX (:mod:`.export`). torch and onnx are imported in
this package only; nothing that serves needs either.
"""
