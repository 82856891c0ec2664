// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	entitiesv1 "github.com/sluice-project/sluice/api/gen/aperture/discovery/entities/v1"
	controlpointsv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/controlpoints/v1"
	"github.com/sluice-project/sluice/internal/discovery"
)

// entitiesService answers aperture.discovery.entities.v1.EntitiesService.
type entitiesService struct {
	entitiesv1.UnimplementedEntitiesServiceServer
	d *Door
}

// mostEntities bounds the entities of one answer, which has each of them twice.
const mostEntities = 5000

// GetEntities implements EntitiesServiceServer.
func (s entitiesService) GetEntities(context.Context, *emptypb.Empty) (*entitiesv1.Entities, error) {
	byIP, byName := make(map[string]*entitiesv1.Entity), make(map[string]*entitiesv1.Entity)
	if s.d.entities != nil {
		for _, e := range s.d.entities.Entities() {
			if len(byIP) == mostEntities {
				return nil, status.Errorf(codes.ResourceExhausted,
					"there are more than %d entities: ask for one by address or name, or use `sluice discover --services`", mostEntities)
			}
			one := entity(&e)
			byIP[one.IpAddress] = one
			if one.Name != "" {
				byName[one.Name] = one
			}
		}
	}
	return &entitiesv1.Entities{
		EntitiesByIpAddress: &entitiesv1.Entities_Entities{Entities: byIP},
		EntitiesByName:      &entitiesv1.Entities_Entities{Entities: byName},
	}, nil
}

// GetEntityByIPAddress implements EntitiesServiceServer.
func (s entitiesService) GetEntityByIPAddress(_ context.Context, in *entitiesv1.GetEntityByIPAddressRequest) (*entitiesv1.Entity, error) {
	if s.d.entities != nil {
		if e, ok := s.d.entities.EntityByIP(in.IpAddress); ok {
			return entity(&e), nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "no entity has the address %q", in.IpAddress)
}

// GetEntityByName implements EntitiesServiceServer.
func (s entitiesService) GetEntityByName(_ context.Context, in *entitiesv1.GetEntityByNameRequest) (*entitiesv1.Entity, error) {
	if s.d.entities != nil {
		if e, ok := s.d.entities.EntityByName(in.Name); ok {
			return entity(&e), nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "no entity has the name %q", in.Name)
}

func entity(e *discovery.Entity) *entitiesv1.Entity {
	return &entitiesv1.Entity{
		Uid: text(e.UID), IpAddress: text(e.Address), Name: text(e.Name), Namespace: text(e.Namespace),
		NodeName: text(e.Node), Services: valid(e.Services),
	}
}

// pointsService answers aperture.flowcontrol.controlpoints.v1.FlowControlPointsService.
type pointsService struct {
	controlpointsv1.UnimplementedFlowControlPointsServiceServer
	d *Door
}

// GetControlPoints implements FlowControlPointsServiceServer.
func (s pointsService) GetControlPoints(context.Context, *emptypb.Empty) (*controlpointsv1.FlowControlPoints, error) {
	out := &controlpointsv1.FlowControlPoints{}
	for _, p := range s.d.engine.Points("", false) {
		kind := kindFeature
		if p.HTTP {
			kind = kindHTTP
		}
		services := p.Services
		if len(services) == 0 {
			services = []string{anyService}
		}
		for _, service := range services {
			out.FlowControlPoints = append(out.FlowControlPoints, &controlpointsv1.FlowControlPoint{
				Service: text(service), ControlPoint: text(p.Name), Type: kind,
			})
		}
	}
	return out, nil
}
