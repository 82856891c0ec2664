// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/flow/v1/flowv1connect"
)

// sdkGate asks a server through its flow service. It fails open, as the SDK does.
type sdkGate struct {
	client flowv1connect.FlowServiceClient
	token  string
}

func newSDKGate(server, token string) (*sdkGate, error) {
	base, err := baseURL(server)
	if err != nil {
		return nil, err
	}
	return &sdkGate{client: flowv1connect.NewFlowServiceClient(&http.Client{}, base), token: token}, nil
}

func (g *sdkGate) close() {}

func (g *sdkGate) start(ctx context.Context, controlPoint string, labels map[string]string) ticket {
	req := connect.NewRequest(&flowv1.StartRequest{ControlPoint: controlPoint, Labels: labels})
	g.authorize(req.Header())
	resp, err := g.client.Start(ctx, req)
	if err != nil {
		return &sdkTicket{v: verdict{run: true, err: err}}
	}
	m := resp.Msg
	return &sdkTicket{g: g, token: m.GetToken(), v: verdict{
		run: m.GetVerdict() == "admit", reason: m.GetReason(), message: m.GetMessage(),
		waited: time.Duration(m.GetWaitedSeconds() * float64(time.Second)),
	}}
}

func (g *sdkGate) authorize(h http.Header) {
	if g.token != "" {
		h.Set("Authorization", "Bearer "+g.token)
	}
}

type sdkTicket struct {
	g     *sdkGate
	token []byte
	v     verdict
}

func (t *sdkTicket) verdict() verdict { return t.v }

func (t *sdkTicket) end(tokens float64, err error) {
	if len(t.token) == 0 {
		return
	}
	msg := &flowv1.EndRequest{Token: t.token, Status: flowv1.FlowStatus_FLOW_STATUS_OK}
	if tokens >= 0 {
		msg.Tokens = &tokens
	}
	if err != nil {
		msg.Status = flowv1.FlowStatus_FLOW_STATUS_ERROR
	}
	req := connect.NewRequest(msg)
	t.g.authorize(req.Header())
	_, _ = t.g.client.End(context.Background(), req) // a lost end frees its slot by max_inflight_duration
}
