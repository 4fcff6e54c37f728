// The model of a training as a session sees it: weights of now, everything else as it was.
#pragma once
#include <map>
#include <memory>
#include <string>

#include "base/fork.h"
#include "training/trainer.h"

namespace tiercel {

class LiveTraining final : public LiveModel {
 public:
  explicit LiveTraining(std::shared_ptr<const TrainingSession> training);
  // Another training of the same model goes on in its place.
  void follow(std::shared_ptr<const TrainingSession> training);

  uint64_t version() const override;
  const Model& given() const override { return base_; }
  std::optional<Model> model(uint64_t& version, bool always) override;

 private:
  mutable ForkSafeMutex mutex_;  // of these two
  std::shared_ptr<const TrainingSession> training_;
  uint64_t before_ = 0;       // versions of trainings before this one
  Model base_;                // as its file is read; without what changes
  std::map<std::string, std::vector<Tensor*>> places_;  // in base_, of what changes: bodies have copies
  std::map<std::string, Tensor> states_, weights_;      // as a session has them: as they are trained, and of the model
};

}  // namespace tiercel
