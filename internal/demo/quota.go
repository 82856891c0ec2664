// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

const (
	quotaControlPoint = "openai"
	quotaModelName    = "gpt-4"
	quotaWorkers      = 10 // per tier
	quotaRequests     = 40 // per worker
	quotaRPM          = 200
	quotaTPM          = 40_000
	// The first half of a worker's requests asks for long answers, so that the limit on tokens is
	// reached, the second half for short ones, so that the limit on requests is. quotaMaxEstimate bounds
	// the longest answer plus the prompt.
	quotaLongAnswer  = 500
	quotaShortAnswer = 30
	quotaMaxEstimate = 550
	// A naive worker waits a second after a refusal and gives a request up after ten attempts.
	quotaAttempts   = 10
	quotaRetryPause = 1.0
)

// The policy's buckets hold less than the provider's by what can be under way between the two at one
// moment: one request of every worker. With that, no timing of the network can make the provider see more
// than its own buckets allow; docs/demos.md has the argument.
const (
	quotaCapacityRPM = quotaRPM - 2*quotaWorkers
	quotaCapacityTPM = quotaTPM - 2*quotaWorkers*quotaMaxEstimate
)

// quotaModel is a hosted model: it never slows down, it only refuses. Answers take 0.3 to 5 s.
func quotaModel(cfg Config, p *provider) modelConfig {
	return modelConfig{
		Name:       quotaModelName,
		GPU:        gpuConfig{Slots: 1000, MaxJobs: 1000, Speed: cfg.Scale},
		PromptRate: 1000, OutputRate: 100,
		MinOutput: 60, MaxOutput: quotaLongAnswer,
		ChunkTokens: 8,
		Seed:        cfg.Seed,
		Quota:       p,
	}
}

func newQuota(cfg Config) (*experiment, error) {
	p, err := newProvider(quotaLimits{Requests: quotaRPM, Tokens: quotaTPM, Minute: clock(cfg.Scale).real(60)})
	if err != nil {
		return nil, err
	}
	m, err := newModel(quotaModel(cfg, p))
	if err != nil {
		return nil, err
	}
	return &experiment{
		name:  "quota",
		title: fmt.Sprintf("Quota: %d workers share a provider's %d requests and %d tokens per minute", 2*quotaWorkers, quotaRPM, quotaTPM),
		unit:  "requests",
		story: []string{
			fmt.Sprintf("The provider is simulated: it speaks OpenAI's chat completions API, answers in 0.3 to 5 s, and allows an API key %d requests and %d tokens per minute. "+
				"It counts with two token buckets that start full and fill continuously. A request is charged its prompt plus max_tokens when it arrives and gets back what it did not use; what does not fit is refused with 429.", quotaRPM, quotaTPM),
			fmt.Sprintf("The first %d requests of a worker ask for at most %d tokens, the others for at most %d: first it is tokens that run out, then requests.", quotaRequests/2, quotaLongAnswer, quotaShortAnswer),
			fmt.Sprintf("Without policy, a worker that meets 429 tries again after %g s, and gives a request up after %d attempts. With policy the workers run the same code, and never need that part of it.", quotaRetryPause, quotaAttempts),
			fmt.Sprintf("The policies are two quota schedulers that fill as fast as the provider does. Their buckets hold %d requests and %d tokens: the provider's limit less what all workers together can have under way, so that no delay between Sluice and the provider can lead to a refusal.", quotaCapacityRPM, quotaCapacityTPM),
			"Tokens are estimated at the start of a flow (label estimated_tokens) and settled with the true number at its end. Paid workers have priority 5, free workers 1: while paid workers ask for all there is, free workers wait long.",
			"Wait is the latency of a request minus the time the same request takes when it is accepted at once: the time lost in queues or between retries.",
		},
		users:        tieredUsers([]string{"paid_user", "free_user"}, quotaWorkers),
		tiers:        []string{"paid_user", "free_user"},
		perUser:      quotaRequests,
		stagger:      0.1,
		patience:     600,
		minPatience:  time.Minute,
		policies:     quotaDocuments(cfg),
		model:        m,
		quota:        p,
		controlPoint: quotaControlPoint,
		labels:       quotaLabels,
		call:         callQuota,
	}, nil
}

func quotaLabels(u user) map[string]string {
	priority := map[string]string{"paid_user": "5", "free_user": "1"}[u.tier]
	return map[string]string{
		"api_key":       "demo-probe", // requests carry the key of their phase
		"model_variant": quotaModelName, "product_reason": u.tier, "prompt_type": "chat", "user_id": u.id, "priority": priority,
	}
}

func quotaDocuments(cfg Config) []document {
	minute := yamlSeconds(clock(cfg.Scale).real(60))
	rpm := document{name: "demo-quota-rpm", file: "policy-rpm.yaml"}
	rpm.text = quotaDocument(rpm.name, "requests", minute, quotaCapacityRPM, quotaRPM, "")
	tpm := document{name: "demo-quota-tpm", file: "policy-tpm.yaml"}
	tpm.text = quotaDocument(tpm.name, "tokens", minute, quotaCapacityTPM, quotaTPM, "\n      tokens_label_key: estimated_tokens")
	return []document{rpm, tpm}
}

func quotaDocument(name, unit, minute string, capacity, fill int, tokens string) string {
	return fmt.Sprintf(`# Never more %s than the provider allows; whoever has to wait waits in order of priority.
blueprint: quota-scheduling/base
policy:
  policy_name: %s
  quota_scheduler:
    # the provider's %d, less what all workers can have under way
    bucket_capacity: %d
    fill_amount: %d
    selectors:
      - control_point: %s
        label_matcher:
          match_labels:
            model_variant: %s
    rate_limiter:
      # a minute at the speed of the story
      interval: %s
      limit_by_label_key: api_key
    scheduler:
      priority_label_key: priority
      workload_label_key: product_reason%s
`, unit, name, fill, capacity, fill, quotaControlPoint, quotaModelName, minute, tokens)
}

// callQuota is what a worker does: ask, send, try again on 429, report what it used.
func callQuota(ctx context.Context, r *runner, u user, n int) Sample {
	prompt, maxTokens := promptFor(r.cfg.Seed, u, n), quotaLongAnswer
	if n >= r.exp.perUser/2 {
		maxTokens = quotaShortAnswer
	}
	labels := r.exp.labels(u)
	labels["api_key"] = r.exp.key
	labels["estimated_tokens"] = strconv.Itoa(tokenCount(prompt) + maxTokens)
	begin := time.Now()
	t := r.gate.start(ctx, r.exp.controlPoint, labels)
	s, v := sampleOf(t), t.verdict()
	if !v.run {
		t.end(-1, nil)
		return s
	}
	usage, refusals, err := r.completeWithRetries(ctx, prompt, maxTokens)
	latency := time.Since(begin)
	s.Refusals = refusals
	if err != nil {
		t.end(-1, err) // what the provider charged is not known: the estimate stands
		return s.failed(err)
	}
	t.end(float64(usage.TotalTokens), nil)
	clock := r.clock()
	alone := r.exp.model.cfg.alone(usage.PromptTokens, usage.CompletionTokens)
	s.Tokens = usage.TotalTokens
	s.LatencySeconds = clock.story(latency)
	s.WaitSeconds = clock.story(max(0, latency-alone))
	s.QueueSeconds = clock.story(v.waited)
	return s
}

// completeWithRetries sends one request until it is accepted, as naive clients do.
func (r *runner) completeWithRetries(ctx context.Context, prompt string, maxTokens int) (usage *chatUsage, refusals int, err error) {
	for {
		usage, status, err := r.complete(ctx, prompt, maxTokens)
		if status != http.StatusTooManyRequests {
			return usage, refusals, err
		}
		refusals++
		if refusals == quotaAttempts || !pause(ctx, r.clock().real(quotaRetryPause)) {
			return nil, refusals, fmt.Errorf("gave up after %d attempts: %w", refusals, err)
		}
	}
}

// complete sends one chat completion. A status other than 200 comes with an error.
func (r *runner) complete(ctx context.Context, prompt string, maxTokens int) (*chatUsage, int, error) {
	resp, err := r.post(ctx, "/v1/chat/completions", chatRequest{
		Model: quotaModelName, Messages: []chatMessage{{"user", prompt}}, MaxTokens: maxTokens,
	})
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, resp.StatusCode, statusError(resp)
	}
	var c chatCompletion
	if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
		return nil, resp.StatusCode, fmt.Errorf("reading the answer: %w", err)
	}
	if c.Usage == nil {
		return nil, resp.StatusCode, errors.New("the answer of the service has no usage")
	}
	return c.Usage, resp.StatusCode, nil
}
