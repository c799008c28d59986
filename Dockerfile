# The inspection service for exported models, on the CPU, without torch:
#     docker build -t skad . && docker run -p 8000:8000 -v ./models:/models skad /models/part.onnx
FROM python:3.11-slim
COPY . /source
RUN bash /source/.ci/install_service && rm -r /source
RUN useradd --create-home skad && mkdir /state && chown skad /state
USER skad
VOLUME /state
EXPOSE 8000
ENTRYPOINT ["python", "-m", "skad", "serve", "--host", "0.0.0.0", "--state", "/state"]
