# cxr in a container: docker build -t cxr-compare .
#
#   docker run --rm --network none -u "$(id -u):$(id -g)" -v "$PWD:/work" cxr-compare prepare xrays data
#
# Add --gpus all where there is one, and --shm-size 2g to train there: loaded batches pass through
# shared memory. Only the build needs a network. About 6 GB: PyTorch's wheels on PyPI carry CUDA, of which its import needs nearly
# all; CPU-only wheels are on an index of PyTorch's own, and mixed with torchvision from PyPI they
# lack its operators (torchvision::nms). Triton, 1 GB that only torch.compile needs, is left out.

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /source
COPY . .
RUN ["python", "-m", "pip", "wheel", "--no-cache-dir", "--no-deps", "--wheel-dir", "/wheel", "."]

FROM python:3.11-slim-bookworm AS environment
COPY constraints.txt /
COPY --from=wheel /wheel /wheel
# With [train,serve]; with [images] the image prepares, evaluates and reports, and its packages take
# 0.9 GB in place of 5.4; without an extra it compares tables, and they take 0.7.
RUN python -m venv --without-pip /opt/cxr \
 && python -m pip --python /opt/cxr/bin/python install --no-cache-dir \
    --constraint /constraints.txt "$(echo /wheel/*.whl)[train,serve]" \
 && python -m pip --python /opt/cxr/bin/python uninstall --yes triton

FROM python:3.11-slim-bookworm
RUN useradd --uid 1000 cxr && install --directory --owner cxr /work
COPY --from=environment /opt/cxr /opt/cxr
# A home that any -u may write to, for the caches of Matplotlib and PyTorch.
ENV PATH="/opt/cxr/bin:$PATH" HOME=/tmp
USER 1000
WORKDIR /work
ENTRYPOINT ["cxr"]
CMD ["--help"]
