// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"time"

	sluice "github.com/sluice-project/sluice/sdk/go"
)

// sdkGate is a gate through the Go SDK, as an application would use it.
type sdkGate struct {
	client *sluice.Client
}

var _ gate = (*sdkGate)(nil)

// unavailableTimeout is how long a flow of a demo waits for a server that does not answer before it runs
// without it. Far more than the SDK's own choice: a demo on a busy laptop should rather wait for its server
// than show numbers of flows that nobody limited.
const unavailableTimeout = 10 * time.Second

func newSDKGate(server, token string) (*sdkGate, error) {
	base, err := baseURL(server)
	if err != nil {
		return nil, err
	}
	client, err := sluice.NewClient(base, sluice.WithToken(token), sluice.WithUnavailableTimeout(unavailableTimeout))
	if err != nil {
		return nil, err
	}
	return &sdkGate{client}, nil
}

func (g *sdkGate) close() { _ = g.client.Close() } // it never fails

func (g *sdkGate) start(ctx context.Context, controlPoint string, labels map[string]string) ticket {
	return sdkTicket{g.client.StartFlow(ctx, controlPoint, labels)}
}

func (g *sdkGate) probe(ctx context.Context, controlPoint string, labels map[string]string) (string, error) {
	flow := g.client.StartFlow(ctx, controlPoint, labels, sluice.WithExplain(), sluice.WithQueueTimeout(0))
	defer flow.End()
	return flow.Verdict().Reason, flow.Err()
}

type sdkTicket struct {
	flow *sluice.Flow
}

func (t sdkTicket) verdict() verdict {
	v := t.flow.Verdict()
	return verdict{
		run: t.flow.ShouldRun(), reason: v.Reason, message: v.Message, waited: v.Waited, err: t.flow.Err(),
	}
}

func (t sdkTicket) end(tokens float64, err error) {
	opts := []sluice.EndOption{sluice.WithError(err)}
	if tokens >= 0 {
		opts = append(opts, sluice.WithTokens(tokens))
	}
	t.flow.End(opts...)
}
