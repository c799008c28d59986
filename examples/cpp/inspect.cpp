// Inspect one image with a detector that `skad export` has written, without Python:
//
//     g++ -std=c++17 -O2 inspect.cpp -o inspect -I"$ONNXRUNTIME_DIR/include"
//         -L"$ONNXRUNTIME_DIR/lib" -lonnxruntime -Wl,-rpath,"$ONNXRUNTIME_DIR/lib"
//     ./inspect part.onnx frame.pgm [THRESHOLD]
//
// (the first command is one line). ONNXRUNTIME_DIR is an unpacked release of ONNX
// Runtime. The image is a binary PGM (gray) or PPM (RGB) file of the size that the
// graph takes. The exit code is 0 for a good image, 1 for an anomalous one, 2 for an
// error.
#include <onnxruntime_cxx_api.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {
  std::vector<int64_t> shape;  // 1, height, width and, of colour, 3
  bool deep;                   // 16 bits, else 8
  std::vector<char> bytes;
};

Image read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  int64_t width = 0, height = 0, top = 0;
  file >> kind >> width >> height >> top;  // a header without comments
  file.get();
  if (!file || (kind != "P5" && kind != "P6") || (top != 255 && top != 65535))
    throw std::runtime_error(path + " is not a PGM or PPM file of 8 or 16 bits");
  Image image{{1, height, width}, top == 65535, {}};
  if (kind == "P6") image.shape.push_back(3);
  image.bytes.resize(height * width * (kind == "P6" ? 3 : 1) * (image.deep ? 2 : 1));
  if (!file.read(image.bytes.data(), image.bytes.size()))
    throw std::runtime_error(path + " ends early");
  if (image.deep)  // the high byte comes first in the file, and last in memory
    for (size_t i = 0; i < image.bytes.size(); i += 2)
      std::swap(image.bytes[i], image.bytes[i + 1]);
  return image;
}

double threshold_of(const Ort::Session& session) {
  Ort::AllocatorWithDefaultOptions allocator;
  auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated("skad", allocator);
  const std::string json = text ? text.get() : "", key = "\"threshold\":";
  const size_t at = json.find(key);  // skad writes the key once, before any other text
  if (at == std::string::npos) throw std::runtime_error("the file has no threshold");
  return std::strtod(json.c_str() + at + key.size(), nullptr);
}

int main(int argc, char** argv) try {
  if (argc < 3) throw std::runtime_error("usage: inspect MODEL IMAGE [THRESHOLD]");
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "skad");
  Ort::Session session(env, argv[1], Ort::SessionOptions{});
  Image image = read(argv[2]);
  const auto info = session.GetInputTypeInfo(0);
  const auto wanted = info.GetTensorTypeAndShapeInfo();
  const auto type = image.deep ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16
                               : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  auto shape = wanted.GetShape();  // -1, height, width and perhaps channels
  shape[0] = 1;
  if (shape != image.shape || wanted.GetElementType() != type)
    throw std::runtime_error("the graph takes images of another size or type");

  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto images = Ort::Value::CreateTensor(memory, image.bytes.data(), image.bytes.size(),
                                         shape.data(), shape.size(), type);
  const char* inputs[] = {"images"};
  const char* outputs[] = {"peak"};  // "anomaly_map" says where
  auto found = session.Run(Ort::RunOptions{}, inputs, &images, 1, outputs, 1);
  const double score = -found[0].GetTensorData<float>()[0];
  const double threshold = argc > 3 ? std::strtod(argv[3], nullptr) : threshold_of(session);
  const bool good = score >= -threshold;
  std::cout << "score " << score << ", threshold " << threshold << ": "
            << (good ? "good" : "anomalous") << std::endl;
  return good ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << "inspect: " << error.what() << std::endl;
  return 2;
}
