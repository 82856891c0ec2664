// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// The wire format of Ollama, as far as the demo speaks it.
type (
	generateRequest struct {
		Model   string `json:"model"`
		Prompt  string `json:"prompt"`
		Stream  *bool  `json:"stream"`
		Options struct {
			NumPredict int `json:"num_predict"`
		} `json:"options"`
	}
	generateChunk struct {
		Model     string    `json:"model"`
		CreatedAt time.Time `json:"created_at"`
		Response  string    `json:"response"`
		Done      bool      `json:"done"`
	}
	generateFinal struct {
		generateChunk
		DoneReason         string        `json:"done_reason"`
		TotalDuration      time.Duration `json:"total_duration"`
		LoadDuration       time.Duration `json:"load_duration"`
		PromptEvalCount    int           `json:"prompt_eval_count"`
		PromptEvalDuration time.Duration `json:"prompt_eval_duration"`
		EvalCount          int           `json:"eval_count"`
		EvalDuration       time.Duration `json:"eval_duration"`
	}
	ollamaError struct {
		Error string `json:"error"`
	}
)

// ollamaGenerate answers POST /api/generate: newline-separated JSON unless "stream" is false.
func (m *model) ollamaGenerate(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		writeJSON(w, http.StatusMethodNotAllowed, ollamaError{"method not allowed, want POST"})
		return
	}
	var req generateRequest
	if err := readJSON(r, &req); err != nil {
		writeJSON(w, http.StatusBadRequest, ollamaError{err.Error()})
		return
	}
	if req.Model != m.cfg.Name {
		writeJSON(w, http.StatusNotFound, ollamaError{fmt.Sprintf("model %q not found, this server has %q", req.Model, m.cfg.Name)})
		return
	}
	g := &ollamaReply{m: m, w: w, begun: time.Now(), answer: m.answerTo(req.Prompt, req.Options.NumPredict)}
	if req.Stream == nil || *req.Stream {
		g.lines = newLines(w, "application/x-ndjson", "", "\n")
	}
	read, err := m.generate(r.Context(), g.answer, g.lines != nil, g.emit)
	if errors.Is(err, errBusy) {
		writeJSON(w, http.StatusServiceUnavailable, ollamaError{"server busy, please try again: " + err.Error()})
		return
	}
	if err == nil {
		g.finish(read)
	}
}

// ollamaReply is one answer on its way out.
type ollamaReply struct {
	m      *model
	w      http.ResponseWriter
	lines  *lines // nil: one JSON object at the end
	answer answer
	begun  time.Time
	text   string
}

func (g *ollamaReply) emit(text string) error {
	if g.lines == nil {
		g.text = text
		return nil
	}
	return g.lines.send(generateChunk{Model: g.m.cfg.Name, CreatedAt: time.Now().UTC(), Response: text})
}

// finish sends the last message, with the figures; read is when the prompt was read.
func (g *ollamaReply) finish(read time.Time) {
	now := time.Now()
	f := generateFinal{
		generateChunk:      generateChunk{Model: g.m.cfg.Name, CreatedAt: now.UTC(), Response: g.text, Done: true},
		DoneReason:         g.answer.reason(),
		TotalDuration:      now.Sub(g.begun),
		PromptEvalCount:    g.answer.promptTokens,
		PromptEvalDuration: read.Sub(g.begun),
		EvalCount:          g.answer.outputTokens,
		EvalDuration:       now.Sub(read),
	}
	if g.lines == nil {
		writeJSON(g.w, http.StatusOK, f)
		return
	}
	_ = g.lines.send(f) // a failed write means that the caller has gone
}

// reason says why an answer ended, in the words both APIs use.
func (a answer) reason() string {
	if a.cut {
		return "length"
	}
	return "stop"
}

// ollamaTags answers GET /api/tags with the one model there is.
func (m *model) ollamaTags(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		writeJSON(w, http.StatusMethodNotAllowed, ollamaError{"method not allowed, want GET"})
		return
	}
	type details struct {
		Format            string `json:"format"`
		Family            string `json:"family"`
		ParameterSize     string `json:"parameter_size"`
		QuantizationLevel string `json:"quantization_level"`
	}
	type tag struct {
		Name       string    `json:"name"`
		Model      string    `json:"model"`
		ModifiedAt time.Time `json:"modified_at"`
		Size       int64     `json:"size"`
		Digest     string    `json:"digest"`
		Details    details   `json:"details"`
	}
	writeJSON(w, http.StatusOK, struct {
		Models []tag `json:"models"`
	}{[]tag{{
		Name: m.cfg.Name, Model: m.cfg.Name, ModifiedAt: time.Unix(0, 0).UTC(), Digest: "simulated",
		Details: details{Format: "simulated", Family: m.cfg.Name, ParameterSize: "7B", QuantizationLevel: "none"},
	}}})
}
